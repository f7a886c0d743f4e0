// A new critical incident that nobody has taken on is heard and seen: a sound again and again, and a title that flashes,
// until somebody accepts it or the person at this browser says so; whoever looks at it has a minute's quiet. What was
// noticed is remembered for the person in this browser, so that it is the state that rings and no message: whatever a
// broken connection has swallowed rings when it is back.
"use strict";

const alarms = (function () {
  const AGAIN_MS = 8000;
  const LOOK_MS = 60000;
  const WATCH_MS = 5000;
  const MANY = 5;
  const KEPT = 500;
  const MUTED = "alarms-muted";
  const button = document.getElementById("sound");
  const board = document.querySelector("[data-flash]");
  // Beside another page than the board there is no stream of alarms: they are asked for.
  const isWatch = board.id === "alarm-watch";
  const said = document.getElementById("alarm-said");
  const HEARD = `alarms-heard-${board.dataset.who}`;
  const plain = document.title;
  let title = plain;
  let audio = null;
  let flashing = null;
  let ringing = null;
  let spoken = new Set();
  /** Incident → until when (ms) it is quiet; 0: for good. */
  let heard = read();

  function read() {
    try {
      return new Map(JSON.parse(localStorage.getItem(HEARD) || "[]"));
    } catch {
      return new Map();
    }
  }

  function isQuiet(id) {
    return heard.has(id) && (heard.get(id) === 0 || heard.get(id) > Date.now());
  }

  /** For those who hear pages read: each new one once. */
  function speak(strip, fresh) {
    const fresher = fresh.filter((id) => !spoken.has(id));
    if (said && fresher.length > 0) {
      const rows = [...strip.querySelectorAll("[data-open]")].filter((one) => fresher.includes(one.dataset.open));
      said.textContent = rows.map((one) => one.textContent).join(" ");
    }
    spoken = new Set([...spoken, ...fresh]);
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
    const fresh = waiting.filter((id) => !isQuiet(id));
    // Where there are many, those that nobody has noticed stand there.
    if (strip) strip.querySelectorAll(".alarm").forEach((row) => {
      row.hidden = isWatch ? isQuiet(row.dataset.id) : waiting.length > MANY && heard.get(row.dataset.id) === 0;
    });
    if (strip) strip.hidden = isWatch ? fresh.length === 0 : waiting.length === 0;
    speak(strip, fresh);
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

  /** The person at this browser has noticed it: it is quiet for good. */
  function hear(id) {
    keep(id, 0);
  }

  /** The person looks at it: a minute's quiet. What is no alarm yet rings when it becomes one. */
  function look(id) {
    if (!ids().includes(id) || heard.get(id) === 0) return;
    keep(id, Date.now() + LOOK_MS);
    setTimeout(check, LOOK_MS + 100);
  }

  function keep(id, until) {
    heard.delete(id);
    heard.set(id, until);
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
    if (opened) look(opened.dataset.open);
  });
  // Another tab of this browser has heard it.
  window.addEventListener("storage", (event) => {
    if (event.key === HEARD) {
      heard = read();
      check();
    }
    if (event.key === MUTED) tell();
  });

  async function watch() {
    try {
      const answer = await fetch("/board/alarms", { headers: { "HX-Request": "true", "X-Follows": "1" } });
      if (!answer.ok) return;
      const template = document.createElement("template");
      template.innerHTML = (await answer.text()).trim();
      const old = document.getElementById("alarms");
      const made = template.content.firstElementChild;
      // Where nothing counts the time, nothing says that it does.
      if (typeof clocks === "undefined") made.querySelectorAll(".waiting").forEach((one) => one.parentElement.remove());
      if (made.dataset.ids !== old.dataset.ids) old.replaceWith(made);
    } catch {
      return;  // The page itself says that it is cut off.
    }
    const shown = document.querySelector("[data-incident]");
    if (shown && !heard.has(shown.dataset.incident)) look(shown.dataset.incident);
    check();
    if (typeof clocks !== "undefined") clocks.paint();
  }

  if (isWatch) {
    watch();
    setInterval(watch, WATCH_MS);
  }
  // A look that was taken before this page was opened ends, too.
  setInterval(check, 10000);
  tell();
  check();
  return { check, hear, look, toggle, ring, lament };
})();
