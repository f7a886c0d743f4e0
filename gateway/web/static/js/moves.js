// An incident that is looked at: kept as it stands, without taking away what somebody is writing.
"use strict";

(function () {
  const shown = () => document.getElementById("incident");
  const followed = document.querySelector("[data-follow]");
  let source = null;
  let position = null;

  function isTouched(field) {
    if (field.matches("select")) {
      return field.selectedIndex !== Math.max(0, [...field.options].findIndex((one) => one.defaultSelected));
    }
    if (field.matches("[type=radio], [type=checkbox]")) return field.checked !== field.defaultChecked;
    return field.type !== "hidden" && field.value !== field.defaultValue;
  }

  function isBusy() {
    const here = shown();
    if (here === null) return false;
    if ([...here.querySelectorAll("form textarea, form input, form select")].some(isTouched)) return true;
    if (here.querySelector(".move-more[open]") !== null) return true;
    // Whoever is about to command a device, or looks at the list of cameras, keeps it.
    if (here.querySelector("#incident-desk[open], #incident-cameras[open]") !== null) return true;
    const focused = document.activeElement;
    return focused !== null && here.contains(focused) && focused.closest("form.move") !== null;
  }

  async function refresh(id) {
    const before = shown();
    if (before === null || before.dataset.incident !== id) return;
    let html;
    try {
      const answer = await fetch(`/incidents/${id}/pane`, { headers: { "HX-Request": "true", "X-Follows": "1" } });
      if (!answer.ok) return;
      html = await answer.text();
    } catch {
      return;
    }
    const old = shown();
    if (old === null || old.dataset.incident !== id) return;
    const template = document.createElement("template");
    template.innerHTML = html.trim();
    const fresh = template.content.firstElementChild;
    // What this page has just done itself has brought the newest already.
    if (Number(fresh.dataset.revision) <= Number(old.dataset.revision)) return;
    if (isBusy()) {
      // The form stays, with the revision that was looked at: the gateway refuses what is decided on an older one.
      const parts = ["head", "given", "signals", "people", "members", "timeline"];
      parts.map((part) => `incident-${part}`).forEach((part) => {
        const here = old.querySelector(`#${part}`);
        const there = fresh.querySelector(`#${part}`);
        if (here && there && !here.contains(document.activeElement)) here.replaceWith(there);
      });
      if (old.querySelector("form.move") !== null && old.dataset.acted !== fresh.dataset.acted) {
        old.querySelector("#incident-moved").hidden = false;
      }
      if (window.htmx) window.htmx.process(old);
    } else {
      const isOpen = old.querySelector("#incident-why[open]") !== null;
      // What somebody was told of their own act stays until the next one, whatever the gateway writes meanwhile.
      const told = old.querySelector("#incident-told");
      const isFocused = told.contains(document.activeElement);
      if (old.dataset.acted === fresh.dataset.acted) fresh.querySelector("#incident-told").replaceWith(told);
      old.replaceWith(fresh);
      if (isFocused && told.isConnected) told.querySelector(".notice").focus({ preventScroll: true });
      if (window.htmx) window.htmx.process(fresh);
      if (isOpen) fresh.querySelector("#incident-why").open = true;
    }
    clocks.paint();
    document.dispatchEvent(new CustomEvent("incident-shown"));
  }

  document.addEventListener("incident-changed", (event) => refresh(event.detail));

  document.addEventListener("htmx:beforeRequest", (event) => {
    if (!event.target.matches("form.move")) return;
    event.target.querySelectorAll("button").forEach((button) => { button.disabled = true; });
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    if (!event.target.matches || !event.target.matches("form.move")) return;
    event.target.querySelectorAll("button").forEach((button) => { button.disabled = false; });
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    clocks.paint();
    const told = document.querySelector("#incident-told .notice");
    if (told && event.detail.requestConfig && event.detail.requestConfig.verb === "post") {
      told.scrollIntoView({ block: "nearest" });
      told.tabIndex = -1;
      told.focus({ preventScroll: true });
    }
  });

  // One form at a time: opening another closes the first.
  document.addEventListener("toggle", (event) => {
    if (!event.target.matches(".move-more") || !event.target.open) return;
    document.querySelectorAll(".move-more[open]").forEach((other) => {
      if (other !== event.target) other.open = false;
    });
    const field = event.target.querySelector("select, textarea, input:not([type=hidden])");
    if (field) field.focus();
  }, true);

  // --- the page by itself ---------------------------------------------------------------------------------------------

  function say(kind) {
    const state = document.getElementById("link-state");
    state.textContent = state.dataset[kind];
    state.classList.toggle("is-live", kind === "live");
    state.classList.toggle("is-away", kind !== "live");
  }

  /** A browser opens few connections to one server: a page that nobody looks at gives its own back. */
  function follow() {
    if (source !== null) source.close();
    source = null;
    if (document.hidden) return;
    const address = new URL(followed.dataset.follow, location.href);
    if (position !== null) address.searchParams.set("after", position);
    source = new EventSource(address);
    source.addEventListener("changed", () => refresh(shown().dataset.incident));
    source.addEventListener("pulse", (event) => {
      const pulse = JSON.parse(event.data);
      position = event.lastEventId || position;
      clocks.set(pulse.now);
      say(!pulse.is_fresh ? "stale" : pulse.is_gateway_there ? "live" : "gone");
    });
    source.addEventListener("error", () => {
      say("away");
      if (source.readyState !== EventSource.CLOSED) return;
      sessions.isOver().then((isIt) => { if (isIt) say("signedOut"); });
      setTimeout(follow, 4000);
    });
  }

  if (followed !== null) {
    document.addEventListener("visibilitychange", follow);
    follow();
  }
})();
