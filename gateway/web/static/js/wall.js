// The wall screen: it follows the stream by itself for weeks, counts down, and says since when it is not live.
"use strict";

(function () {
  const RETRY_MS = [1000, 2000, 4000, 8000, 15000];
  const SILENCE_MS = 16000;
  const SHANGHAI_MS = 8 * 3600000;
  const DAY_S = 86400;
  const SOON_DAYS = 3;
  const wall = document.getElementById("wall");
  const link = document.getElementById("wall-link");
  const stopped = document.getElementById("wall-stopped");
  const live = document.getElementById("wall-live");
  let source = null;
  let retry = null;
  let failures = 0;
  let heard = performance.now();
  let freshAt = Number(wall.dataset.now);
  let kind = "";

  function two(number) {
    return String(number).padStart(2, "0");
  }

  function local(moment) {
    return new Date(moment + SHANGHAI_MS);
  }

  function clockOf(moment) {
    const at = local(moment);
    return `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}:${two(at.getUTCSeconds())}`;
  }

  function tick() {
    const date = document.getElementById("wall-date");
    const at = local(clocks.now());
    document.getElementById("wall-time").textContent = clockOf(clocks.now());
    const day = `${at.getUTCMonth() + 1}-${two(at.getUTCDate())} ${date.dataset.days.split(",")[at.getUTCDay()]}`;
    if (date.textContent !== day) date.textContent = day;
  }

  /** Whether what is shown is so now; if not, since when. */
  function say(now) {
    if (now !== kind) {
      kind = now;
      link.textContent = link.dataset[kind];
      link.classList.toggle("is-live", kind === "live");
      wall.classList.toggle("is-stopped", kind !== "live");
      stopped.hidden = kind === "live";
      stopped.querySelector("b").textContent = link.dataset[kind];
      stopped.querySelector("a").hidden = kind !== "signedOut";
    }
    const text = stopped.querySelector("span");
    // A gateway that is away stops nothing of what people do: the data are those of now, and nothing new comes in.
    text.textContent = kind === "gone" || kind === "live" ? "" : text.dataset.text.replace("{time}", clockOf(freshAt));
  }

  function feel(pulse) {
    failures = 0;
    heard = performance.now();
    clocks.set(pulse.now);
    if (pulse.version !== wall.dataset.version) {
      location.reload();
      return;
    }
    if (pulse.is_fresh) freshAt = pulse.now;
    say(!pulse.is_fresh ? "stale" : pulse.is_gateway_there ? "live" : "gone");
  }

  function connect() {
    clearTimeout(retry);
    if (source !== null) source.close();
    heard = performance.now();
    source = new EventSource("/wall/stream");
    source.addEventListener("wall", (event) => {
      live.innerHTML = JSON.parse(event.data).html;
      clocks.paint();
    });
    source.addEventListener("pulse", (event) => feel(JSON.parse(event.data)));
    source.addEventListener("session", (event) => {
      const days = JSON.parse(event.data).left_s / DAY_S;
      if (kind === "live") {
        link.textContent = days < SOON_DAYS ? link.dataset.ends.replace("{days}", days.toFixed(1)) : link.dataset.live;
      }
    });
    source.addEventListener("error", () => {
      say("away");
      if (source.readyState === EventSource.CLOSED) again();
    });
  }

  /** Asks by itself, for ever: whoever is signed in again finds the screen at work again. */
  function again() {
    clearTimeout(retry);
    retry = setTimeout(async () => {
      try {
        const answer = await fetch("/wall/part", { headers: { "HX-Request": "true" }, redirect: "manual" });
        if (answer.ok) {
          connect();
          return;
        }
        if (answer.status === 401 || answer.status === 403) say("signedOut");
      } catch {
        // Nobody there: later.
      }
      again();
    }, RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]);
  }

  setInterval(() => {
    tick();
    if (performance.now() - heard > SILENCE_MS && source !== null && source.readyState !== EventSource.CLOSED) {
      say("away");
      source.close();
      again();
    }
  }, 1000);

  tick();
  connect();
})();
