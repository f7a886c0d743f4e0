// A new critical incident that nobody has taken on is heard and seen: a sound again and again, and a title that flashes,
// until somebody accepts it or this browser's user says so. What was heard is remembered for this browser, so that it is
// the state that rings and no message: whatever a broken connection has swallowed rings when it is back.
"use strict";

const alarms = (function () {
  const AGAIN_MS = 8000;
  const HEARD = "alarms-heard";
  const KEPT = 500;
  const MUTED = "alarms-muted";
  const button = document.getElementById("sound");
  const board = document.querySelector("[data-flash]");
  const plain = document.title;
  let title = plain;
  let audio = null;
  let flashing = null;
  let ringing = null;
  let heard = read();

  function read() {
    try {
      return new Set(JSON.parse(localStorage.getItem(HEARD) || "[]"));
    } catch {
      return new Set();
    }
  }

  function ids() {
    const strip = document.getElementById("alarms");
    return strip && strip.dataset.ids ? strip.dataset.ids.split(" ") : [];
  }

  function isMuted() {
    return localStorage.getItem(MUTED) === "true";
  }

  function isSounding() {
    return !isMuted() && audio !== null && audio.state === "running";
  }

  /** Two falling tones, twice, made here: no file, and loud enough to be heard across a room. */
  function ring() {
    if (!isSounding()) return;
    const start = audio.currentTime + 0.02;
    [880, 660, 880, 660].forEach((pitch, place) => {
      const tone = audio.createOscillator();
      const loudness = audio.createGain();
      const at = start + place * 0.24;
      tone.type = "triangle";
      tone.frequency.value = pitch;
      loudness.gain.setValueAtTime(0.0001, at);
      loudness.gain.exponentialRampToValueAtTime(0.35, at + 0.02);
      loudness.gain.exponentialRampToValueAtTime(0.0001, at + 0.22);
      tone.connect(loudness).connect(audio.destination);
      tone.start(at);
      tone.stop(at + 0.24);
    });
    document.body.dataset.rung = String(Number(document.body.dataset.rung || 0) + 1);
  }

  /** Looks at what is unanswered now, and rings for what was not heard yet. */
  function check() {
    const waiting = ids();
    const strip = document.getElementById("alarms");
    if (strip) strip.hidden = waiting.length === 0;
    const fresh = waiting.filter((id) => !heard.has(id));
    if (fresh.length === 0) {
      stop();
      return;
    }
    if (ringing === null) {
      ring();
      ringing = setInterval(ring, AGAIN_MS);
    }
    if (flashing === null) {
      let isOn = false;
      flashing = setInterval(() => {
        isOn = !isOn;
        document.title = isOn ? `${board.dataset.flash}${title}` : title;
      }, 900);
      document.title = `${board.dataset.flash}${title}`;
    }
  }

  function stop() {
    clearInterval(ringing);
    clearInterval(flashing);
    ringing = flashing = null;
    document.title = title;
  }

  /** Whether what this page shows is not so any more: then its title says it, too. */
  function lament(isDead) {
    title = isDead ? `${board.dataset.dead}${plain}` : plain;
    if (flashing === null) document.title = title;
  }

  /** Somebody at this browser has noticed it. */
  function hear(id) {
    heard.add(id);
    localStorage.setItem(HEARD, JSON.stringify([...heard].slice(-KEPT)));
    check();
  }

  /** A page may make sounds only after somebody has touched it. */
  function unlock() {
    if (audio === null) {
      const Audio = window.AudioContext || window.webkitAudioContext;
      if (!Audio) return;
      audio = new Audio();
      audio.addEventListener("statechange", tell);
    }
    if (audio.state === "suspended") audio.resume().then(tell);
    tell();
  }

  function tell() {
    if (!button) return;
    const isOn = isSounding();
    button.setAttribute("aria-pressed", String(isOn));
    const words = isOn ? button.dataset.on : button.dataset.off;
    button.title = words;
    document.getElementById("sound-words").textContent = words;
    const waves = button.querySelector(".waves");
    if (waves) waves.style.opacity = isOn ? "1" : "0.15";
  }

  function toggle() {
    localStorage.setItem(MUTED, String(isSounding()));
    unlock();
    tell();
    if (ringing !== null) ring();
  }

  if (button) button.addEventListener("click", toggle);
  ["pointerdown", "keydown"].forEach((name) => {
    document.addEventListener(
      name,
      (event) => {
        if (!isMuted() && !(button && button.contains(event.target))) unlock();
      },
      { capture: true }
    );
  });
  document.addEventListener("click", (event) => {
    const found = event.target.closest("[data-heard]");
    if (found) hear(found.dataset.heard);
    const opened = event.target.closest("[data-open]");
    if (opened) hear(opened.dataset.open);
  });
  // Another tab of this browser has heard it.
  window.addEventListener("storage", (event) => {
    if (event.key === HEARD) {
      heard = read();
      check();
    }
    if (event.key === MUTED) tell();
  });

  tell();
  check();
  return { check, hear, toggle, ring, lament };
})();
