// One device: what it sends appears as soon as the gateway has it, in a live test with a big word.
"use strict";

(function () {
  const page = document.getElementById("device");
  const heard = document.getElementById("heard");
  const MOST = 60;
  let source = null;
  let after = page.dataset.after;
  let isStale = false;

  function say(kind) {
    const state = document.getElementById("link-state");
    state.textContent = state.dataset[kind];
    state.classList.toggle("is-live", kind === "live");
    state.classList.toggle("is-away", kind !== "live");
  }

  function take(signal) {
    const template = document.createElement("template");
    template.innerHTML = signal.html.trim();
    const row = template.content.firstElementChild;
    row.classList.add("is-new");
    heard.prepend(row);
    while (heard.children.length > MOST) heard.lastElementChild.remove();
    const none = document.getElementById("heard-none");
    if (none) none.remove();
    const got = document.getElementById("trial-got");
    if (got !== null) {
      got.hidden = false;
      got.textContent = `${signal.reason ? got.dataset.odd : got.dataset.got} · ${row.textContent.trim()}`;
      got.classList.toggle("is-odd", signal.reason !== "");
      document.getElementById("trial-ask").hidden = true;
    }
    refresh();
  }

  /** The values, at most once a second. */
  function refresh() {
    if (isStale || document.getElementById("values") === null) return;
    isStale = true;
    setTimeout(async () => {
      isStale = false;
      try {
        const answer = await fetch(`${page.dataset.address}/values`, { headers: { "HX-Request": "true" } });
        if (!answer.ok) return;
        const template = document.createElement("template");
        template.innerHTML = (await answer.text()).trim();
        document.getElementById("values").replaceWith(template.content.firstElementChild);
      } catch {
        // The stream says that the link is gone.
      }
      draw();
    }, 500);
  }

  function follow() {
    if (source !== null) source.close();
    source = null;
    if (document.hidden) return;
    source = new EventSource(`${page.dataset.address}/stream?after=${after}`);
    source.addEventListener("signal", (event) => take(JSON.parse(event.data)));
    source.addEventListener("pulse", (event) => {
      const pulse = JSON.parse(event.data);
      after = event.lastEventId || after;
      clocks.set(pulse.now);
      say(!pulse.is_fresh ? "stale" : pulse.is_gateway_there ? "live" : "gone");
    });
    source.addEventListener("error", () => {
      say("away");
      if (source.readyState === EventSource.CLOSED) setTimeout(follow, 4000);
    });
  }

  document.addEventListener("visibilitychange", follow);
  follow();

  // --- what was done to it ---------------------------------------------------------------------------------------------

  const past = document.getElementById("past");
  fetch(past.dataset.loads, { headers: { "HX-Request": "true" } })
    .then((answer) => (answer.ok ? answer.text() : null))
    .then((html) => { if (html !== null) past.innerHTML = html; })
    .catch(() => {});

  // --- the curve -------------------------------------------------------------------------------------------------------

  const holder = document.getElementById("chart");
  const choice = document.getElementById("chart-name");

  async function draw() {
    if (holder === null || !window.echarts) return;
    let points;
    try {
      const answer = await fetch(`${page.dataset.address}/points?name=${encodeURIComponent(choice.value)}`);
      if (!answer.ok) return;
      points = (await answer.json()).points;
    } catch {
      return;
    }
    document.getElementById("chart-none").hidden = points.length > 0;
    holder.hidden = points.length === 0;
    if (points.length > 0) curves.draw(holder, points);
  }

  if (holder !== null) {
    choice.addEventListener("change", draw);
    document.addEventListener("look-changed", draw);
    draw();
  }
})();
