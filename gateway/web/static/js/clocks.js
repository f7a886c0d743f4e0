// Time limits that run down and waiting times that run up, by the gateway's clock, which a simulation lets run faster.
"use strict";

const clocks = (function () {
  const DAY = 86400000;
  const HOUR = 3600000;
  const isChinese = document.documentElement.lang.startsWith("zh");
  let anchorReal = performance.now();
  let anchor = Date.now();
  let speed = 1;

  /** The gateway's time, in ms UTC. */
  function now() {
    return anchor + (performance.now() - anchorReal) * speed;
  }

  /** The gateway says what time it is. */
  function set(moment, pace) {
    anchor = moment;
    anchorReal = performance.now();
    if (pace) speed = pace;
  }

  function two(number) {
    return String(number).padStart(2, "0");
  }

  /** The same text as words.show_left writes. */
  function left(ms) {
    const sign = ms < 0 ? "-" : "";
    const span = Math.abs(Math.trunc(ms));
    const seconds = two(Math.floor(span / 1000) % 60);
    const minutes = two(Math.floor(span / 60000) % 60);
    const hours = Math.floor(span / HOUR);
    if (span >= DAY) {
      const days = Math.floor(span / DAY);
      return isChinese ? `${sign}${days}天${hours % 24}时` : `${sign}${days}d ${hours % 24}h`;
    }
    return hours ? `${sign}${hours}:${minutes}:${seconds}` : `${sign}${minutes}:${seconds}`;
  }

  function paint() {
    const moment = now();
    document.querySelectorAll(".clock[data-due]").forEach((clock) => {
      const due = Number(clock.dataset.due);
      clock.classList.toggle("is-overdue", moment >= due);
      clock.classList.toggle("is-warned", moment < due && moment >= Number(clock.dataset.warn));
      const text = left(due - moment);
      if (clock.textContent !== text) clock.textContent = text;
    });
    document.querySelectorAll(".waiting[data-since]").forEach((waiting) => {
      const text = left(Math.max(0, moment - Number(waiting.dataset.since)));
      if (waiting.textContent !== text) waiting.textContent = text;
    });
  }

  const source = document.querySelector("[data-now]");
  if (source) set(Number(source.dataset.now), Number(source.dataset.speed));
  paint();
  setInterval(paint, 1000);
  return { now, set, paint };
})();
