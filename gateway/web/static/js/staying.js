// Whoever only watches is signed out when nothing was done for long: said before it happens, and put off by one key.
// That the page is live does not count as doing something: a desk that nobody sits at must close.
"use strict";

const staying = (function () {
  const WARN_S = 180;
  const box = document.getElementById("staying");
  const told = box.querySelector("b");
  const why = box.querySelector("span");
  const button = document.getElementById("stay");
  let endsAt = null;
  let longest = 0;

  /** The server says in how many seconds the session ends. */
  function tell(left) {
    longest = Math.max(longest, left);
    endsAt = performance.now() + left * 1000;
    paint();
  }

  function left() {
    return endsAt === null ? Infinity : Math.max(0, Math.round((endsAt - performance.now()) / 1000));
  }

  function paint() {
    const seconds = left();
    const isNear = seconds <= Math.min(WARN_S, longest / 3);
    if (isNear && box.hidden) alarms.ring();
    box.hidden = !isNear;
    const text = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    if (isNear) told.textContent = told.dataset.text.replace("{left}", text);
  }

  async function stay() {
    const token = document.querySelector("meta[name=csrf]").content;
    try {
      const answer = await fetch("/account/stay", { method: "POST", headers: { "X-CSRF-Token": token } });
      if (!answer.ok) return;
      const before = left();
      tell((await answer.json()).left_s);
      if (left() <= before) {
        // Not idleness ends it, but its greatest length: then no key helps.
        why.textContent = why.dataset.final;
        button.hidden = true;
      }
    } catch {
      // The line is cut; the board says so.
    }
  }

  button.addEventListener("click", stay);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "s" || box.hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select")) return;
    event.preventDefault();
    stay();
  });
  setInterval(paint, 1000);
  return { tell };
})();
