// The board: rows that come, change, move and go as the server says; keys; and the incident beside the list.
"use strict";

(function () {
  const RETRY_MS = [1000, 2000, 4000, 8000, 15000];
  const SILENCE_MS = 16000;
  const BREAK_MS = 6000;
  const CRY_MS = 30000;
  // What the page fetches by itself keeps no session alive.
  const FOLLOWS = { "X-Follows": "1" };
  const SHANGHAI_MS = 8 * 3600000;
  const wide = window.matchMedia("(min-width: 1600px)");
  const state = document.getElementById("link-state");
  const pane = document.getElementById("pane");
  let source = null;
  let position = null;
  let failures = 0;
  let retry = null;
  let lastHeard = performance.now();

  const list = () => document.getElementById("list");
  const cases = () => document.getElementById("cases");

  // --- the connection ---------------------------------------------------------------------------------------------

  const notLive = document.getElementById("not-live");
  let kind = "live";
  let deadSince = 0;
  let rungAt = 0;
  let freshAt = clocks.now();

  function say(now) {
    if (now !== "live" && kind === "live") deadSince = performance.now();
    kind = now;
    state.textContent = state.dataset[kind];
    state.classList.toggle("is-live", kind === "live");
    state.classList.toggle("is-away", kind !== "live");
    cry();
  }

  /** A board that is not live says so loudly: a short break of the line excepted, which mends itself. */
  function cry() {
    const isDead = kind !== "live" && (kind !== "away" || performance.now() - deadSince > BREAK_MS);
    alarms.lament(isDead);
    notLive.hidden = !isDead;
    if (!isDead) {
      rungAt = 0;
      return;
    }
    notLive.querySelector("b").textContent = state.dataset[kind];
    const text = notLive.querySelector("span");
    const at = new Date(freshAt + SHANGHAI_MS).toISOString().slice(11, 19);
    text.textContent = kind === "gone" ? "" : text.dataset.text.replace("{time}", at);
    notLive.querySelector("a").hidden = kind !== "signedOut";
    if (rungAt === 0 || performance.now() - rungAt > CRY_MS) {
      rungAt = performance.now();
      alarms.ring();
    }
  }

  /** Listens from the position on that this page shows, or that it has heard of last. */
  function connect() {
    clearTimeout(retry);
    if (source !== null) source.close();
    const address = new URL(list().dataset.stream, location.href);
    if (position !== null) address.searchParams.set("after", position);
    source = new EventSource(address);
    lastHeard = performance.now();
    source.addEventListener("row", (event) => put(JSON.parse(event.data)));
    source.addEventListener("gone", (event) => drop(JSON.parse(event.data).id));
    source.addEventListener("alarms", (event) => replace("alarms", JSON.parse(event.data).html, alarms.check));
    source.addEventListener("counts", (event) => replace("counts", JSON.parse(event.data).html, markCount));
    source.addEventListener("pulse", (event) => feel(JSON.parse(event.data), event.lastEventId));
    source.addEventListener("resync", resync);
    source.addEventListener("session", (event) => staying.tell(JSON.parse(event.data).left_s));
    source.addEventListener("error", () => {
      say("away");
      // A browser comes back by itself from a cut line, but not from an answer that is no stream.
      if (source.readyState === EventSource.CLOSED) again();
    });
  }

  function feel(pulse, id) {
    failures = 0;
    lastHeard = performance.now();
    if (id) position = id;
    clocks.set(pulse.now);
    if (pulse.is_fresh) freshAt = pulse.now;
    say(!pulse.is_fresh ? "stale" : pulse.is_gateway_there ? "live" : "gone");
  }

  function again() {
    clearTimeout(retry);
    retry = setTimeout(async () => {
      try {
        const answer = await fetch("/board/alarms", { headers: { "HX-Request": "true", ...FOLLOWS }, redirect: "manual" });
        if (answer.status === 401) {
          say("signedOut");
          again();
          return;
        }
        if (answer.ok) {
          connect();
          return;
        }
      } catch {
        // Nobody there: later.
      }
      again();
    }, RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]);
  }

  // A line that is cut without a word is noticed by the silence on it.
  setInterval(() => {
    cry();
    if (performance.now() - lastHeard > SILENCE_MS) {
      say("away");
      lastHeard = performance.now();
      source.close();
      again();
    }
  }, 2000);

  /** Too far behind to be told what has changed: everything is read again. */
  async function resync() {
    source.close();
    try {
      const [rows, strip] = await Promise.all([read(location.href, FOLLOWS), read("/board/alarms", FOLLOWS)]);
      position = null;
      replace("list", rows);
      replace("alarms", strip, alarms.check);
      settle();
    } catch {
      say("away");
      again();
    }
  }

  async function read(address, more = {}) {
    const answer = await fetch(address, { headers: { "HX-Request": "true", ...more } });
    if (!answer.ok) throw new Error(String(answer.status));
    return answer.text();
  }

  // --- rows -------------------------------------------------------------------------------------------------------

  function make(html) {
    const template = document.createElement("template");
    template.innerHTML = html.trim();
    return template.content.firstElementChild;
  }

  function replace(id, html, then) {
    const old = document.getElementById(id);
    if (!old) return;
    const made = make(html);
    const focused = old.contains(document.activeElement) ? document.activeElement.dataset : null;
    old.replaceWith(made);
    if (window.htmx) window.htmx.process(made);
    clocks.paint();
    if (then) then();
    if (focused === null) return;
    const same = [...made.querySelectorAll("a, button")].find((one) =>
      ["heard", "open", "filter"].some((name) => focused[name] && one.dataset[name] === focused[name]));
    if (same) same.focus({ preventScroll: true });
  }

  function put(row) {
    const old = document.getElementById(`case-${row.id}`);
    const made = make(row.html);
    const hadFocus = old !== null && old.contains(document.activeElement);
    const isCurrent = old !== null && old.classList.contains("is-current");
    if (old !== null) old.remove();
    const next = [...cases().children].find((other) => other.dataset.key > row.key);
    // What belongs below the page's last row comes with the next page, and nothing else does.
    const more = document.getElementById("more");
    if (next === undefined && more !== null && row.key > more.dataset.after) return;
    cases().insertBefore(made, next || null);
    if (isCurrent) made.classList.add("is-current");
    if (hadFocus) made.querySelector(".case-title").focus({ preventScroll: true });
    if (old === null) {
      made.classList.add("is-new");
      setTimeout(() => made.classList.remove("is-new"), 6000);
    }
    clocks.paint();
    tellEmpty();
    if (isCurrent || shownInPane() === row.id) document.dispatchEvent(new CustomEvent("incident-changed", { detail: row.id }));
  }

  function drop(id) {
    const old = document.getElementById(`case-${id}`);
    if (old !== null) {
      if (old.contains(document.activeElement)) (old.nextElementSibling || old.previousElementSibling || old)
        .querySelector(".case-title").focus({ preventScroll: true });
      old.remove();
      tellEmpty();
    }
    if (shownInPane() === id) document.dispatchEvent(new CustomEvent("incident-changed", { detail: id }));
  }

  function tellEmpty() {
    const empty = document.getElementById("empty");
    if (empty) empty.hidden = cases().children.length > 0;
  }

  /** Which of the numbers above the list is the filter that holds. */
  function markCount() {
    const asked = new URL(location.href).searchParams;
    document.querySelectorAll(".count").forEach((count) => {
      const wanted = new URLSearchParams(count.dataset.filter);
      const isIt = ["level", "overdue"].every((name) => (asked.get(name) || "") === (wanted.get(name) || ""));
      if (isIt) count.setAttribute("aria-current", "true");
      else count.removeAttribute("aria-current");
    });
  }

  // --- the incident beside the list -----------------------------------------------------------------------------------

  function shownInPane() {
    const shown = pane.querySelector("[data-incident]");
    return shown ? shown.dataset.incident : null;
  }

  async function open(id, address) {
    if (!wide.matches) {
      location.href = address;
      return;
    }
    mark(document.getElementById(`case-${id}`));
    try {
      pane.innerHTML = await read(`${address}/pane`);
    } catch {
      location.href = address;
      return;
    }
    pane.scrollTop = 0;
    if (window.htmx) window.htmx.process(pane);
    clocks.paint();
    document.dispatchEvent(new CustomEvent("incident-shown"));
    pane.focus({ preventScroll: true });
    alarms.look(id);
  }

  function mark(row) {
    document.querySelectorAll(".case.is-current").forEach((other) => other.classList.remove("is-current"));
    if (row) row.classList.add("is-current");
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest(".case-title, [data-open]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    const row = link.closest(".case");
    open(row ? row.dataset.id : link.dataset.open, link.getAttribute("href"));
  });

  // --- keys ---------------------------------------------------------------------------------------------------------

  function step(by) {
    const rows = [...document.querySelectorAll(".case")];
    if (rows.length === 0) return;
    const here = rows.findIndex((row) => row.contains(document.activeElement));
    const current = here >= 0 ? here : rows.findIndex((row) => row.classList.contains("is-current"));
    const place = current < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, current + by));
    const link = rows[place].querySelector(".case-title");
    link.focus();
    rows[place].scrollIntoView({ block: "nearest" });
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const isTyping = event.target.closest("input, textarea, select");
    if (event.key === "Escape" && (isTyping || pane.contains(document.activeElement))) {
      const current = document.querySelector(".case.is-current .case-title") || document.querySelector(".case-title");
      if (current) current.focus();
      return;
    }
    if (isTyping) return;
    const act = {
      j: () => step(1),
      k: () => step(-1),
      "/": () => document.getElementById("search").focus(),
      m: alarms.toggle,
    }[event.key];
    if (act) {
      event.preventDefault();
      act();
    }
  });

  // --- filters --------------------------------------------------------------------------------------------------------

  function settle() {
    markCount();
    tellEmpty();
    connect();
  }

  const filters = document.querySelector(".board-filters");
  if (window.matchMedia("(max-width: 1000px)").matches) filters.open = false;

  document.addEventListener("click", (event) => {
    const count = event.target.closest(".count");
    if (!count || !window.htmx || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const form = document.getElementById("filters");
    const wanted = new URLSearchParams(count.dataset.filter);
    form.elements.level.value = wanted.get("level") || "";
    form.elements.overdue.value = wanted.get("overdue") || "";
    window.htmx.trigger(form, "change");
  });

  document.addEventListener("htmx:configRequest", (event) => {
    // An address with empty fields in it reads badly and is shared often.
    if (event.detail.path !== "/board") return;
    const fields = event.detail.formData || null;
    if (!fields) return;
    [...fields.keys()].forEach((name) => { if (!fields.get(name)) fields.delete(name); });
    if (fields.get("sort") === "incident") fields.delete("sort");
  });

  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target && event.detail.target.id === "list") {
      position = null;
      settle();
      clocks.paint();
    }
    if (event.detail.target && event.detail.target.id === "more") {
      // Rows of the next page came where the button was: they belong to the list.
      document.querySelectorAll(".board-scroll > .case").forEach((row) => {
        const known = cases().querySelector(`#case-${CSS.escape(row.dataset.id)}`);
        if (known) row.remove();
        else cases().append(row);
      });
      clocks.paint();
    }
  });
  window.addEventListener("popstate", () => location.reload());
  window.addEventListener("pagehide", () => source && source.close());
  window.addEventListener("pageshow", (event) => event.persisted && connect());

  settle();
})();
