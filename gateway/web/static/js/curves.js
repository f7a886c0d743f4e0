// Curves of readings, on the page of a device and of an incident. The library is fetched when a curve is first drawn.
"use strict";

const curves = (function () {
  const SHANGHAI_MS = 28800000;
  let library = null;

  /** Until the library is there; false where it cannot be had. */
  function load(address) {
    if (window.echarts) return Promise.resolve(true);
    if (library === null) {
      library = new Promise((done) => {
        const script = document.createElement("script");
        script.src = address;
        script.addEventListener("load", () => done(true));
        script.addEventListener("error", () => { library = null; done(false); });
        document.head.append(script);
      });
    }
    return library;
  }

  /** Draws [[ms, value], ...] into an element. `words` is {yes, no} where the values are a truth; `marks` are moments
      (ms) and `mark` is their name; `span` is [from, to] (ms) where it is not what the points reach over. */
  function draw(holder, points, { words = null, marks = [], mark = "", span = null } = {}) {
    const style = getComputedStyle(document.documentElement);
    const paint = (name) => style.getPropertyValue(name).trim();
    const [ink, line, accent] = [paint("--ink-3"), paint("--line"), paint("--accent")];
    // On a canvas, and a tooltip in it: as SVG or HTML it would carry styles of its own, which the pages' policy forbids.
    const chart = echarts.getInstanceByDom(holder) || echarts.init(holder, null, { renderer: "canvas" });
    // The axis tells the time of Asia/Shanghai, wherever the browser is.
    const local = (at) => at + SHANGHAI_MS;
    const truth = words === null ? {} : {
      min: 0, max: 1, interval: 1, axisLabel: { color: ink, formatter: (value) => (value ? words.yes : words.no) },
    };
    chart.setOption({
      animation: false,
      useUTC: true,
      grid: { left: 46, right: 14, top: marks.length ? 24 : 14, bottom: 26 },
      tooltip: {
        trigger: "axis", renderMode: "richText",
        backgroundColor: paint("--surface"), borderColor: line, textStyle: { color: ink },
        valueFormatter: words === null ? undefined : (value) => (value ? words.yes : words.no),
      },
      xAxis: {
        type: "time", axisLabel: { color: ink, hideOverlap: true }, axisLine: { lineStyle: { color: line } },
        ...(span === null ? {} : { min: local(span[0]), max: local(span[1]) }),
      },
      yAxis: {
        type: "value", scale: words === null, axisLabel: { color: ink }, splitLine: { lineStyle: { color: line } }, ...truth,
      },
      series: [{
        type: "line", step: "end", data: points.map(([at, value]) => [local(at), value]),
        showSymbol: points.length < 60, symbolSize: 4,
        lineStyle: { color: accent, width: 1.5 },
        itemStyle: { color: accent },
        markLine: {
          silent: true, symbol: "none", lineStyle: { color: paint("--critical-solid"), type: "solid", width: 1.5 },
          label: { color: ink, formatter: mark, position: "end", show: marks.length < 4 },
          data: marks.map((at) => ({ xAxis: local(at) })),
        },
      }],
    }, true);
    return chart;
  }

  window.addEventListener("resize", () => {
    if (!window.echarts) return;
    document.querySelectorAll(".chart").forEach((holder) => {
      const chart = echarts.getInstanceByDom(holder);
      if (chart) chart.resize();
    });
  });

  return { load, draw };
})();
