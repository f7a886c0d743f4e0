// The appraisal's table as charts. The table says it all; without the library there is only the table.
"use strict";

(function () {
  const rows = [...document.querySelectorAll("#figures tbody tr[data-key]")].map((row) => row.dataset);
  if (!window.echarts || rows.length === 0) return;
  const MOST_ROWS = 24;
  const MOST_LINES = 8;
  document.getElementById("charts").hidden = false;
  const numbers = document.getElementById("chart-number");
  const rates = document.getElementById("chart-rate");
  // On a canvas, and a tooltip in it: as SVG or HTML it would carry styles of its own, which the pages' policy forbids.
  const charts = [numbers, rates].map((holder) => echarts.init(holder, null, { renderer: "canvas" }));
  const has_periods = rows[0].period !== "";

  function percent(text) {
    return text === "" ? null : Math.round(Number(text) * 1000) / 10;
  }

  function look() {
    const style = getComputedStyle(document.documentElement);
    const get = (name) => style.getPropertyValue(name).trim();
    return {
      ink: get("--ink-2"), line: get("--line"), surface: get("--surface"),
      accent: get("--accent"), good: get("--good"), urgent: get("--urgent-solid"), normal: get("--normal-solid"),
      critical: get("--critical-solid"),
    };
  }

  function frame(colours, categories, more) {
    const axis = { axisLabel: { color: colours.ink }, axisLine: { lineStyle: { color: colours.line } } };
    return {
      animation: false,
      textStyle: { fontFamily: getComputedStyle(document.body).fontFamily },
      grid: { left: 8, right: 16, top: 34, bottom: 8, containLabel: true },
      legend: { type: "scroll", top: 0, textStyle: { color: colours.ink }, pageTextStyle: { color: colours.ink } },
      tooltip: {
        trigger: "axis", confine: true, renderMode: "richText", axisPointer: { type: "shadow" },
        backgroundColor: colours.surface, borderColor: colours.line, textStyle: { color: colours.ink },
      },
      xAxis: { type: "category", data: categories, ...axis, axisLabel: { color: colours.ink, hideOverlap: true } },
      yAxis: { type: "value", ...axis, splitLine: { lineStyle: { color: colours.line } }, ...more },
    };
  }

  /** A bar for each row, the largest first. */
  function drawRows(colours) {
    const shown = [...rows].sort((a, b) => b.number - a.number).slice(0, MOST_ROWS);
    const names = shown.map((row) => row.name);
    const label = { color: colours.ink, interval: 0, rotate: names.length > 8 ? 40 : 0, width: 90, overflow: "truncate" };
    const bar = (name, field, colour) => ({
      name, type: "bar", stack: "all", barMaxWidth: 34, itemStyle: { color: colour }, data: shown.map((row) => Number(row[field])),
    });
    const rate = (name, field, colour) => ({
      name, type: "bar", barMaxWidth: 18, itemStyle: { color: colour }, data: shown.map((row) => percent(row[field])),
    });
    const first = frame(colours, names, { minInterval: 1 });
    const second = frame(colours, names, { max: 100, min: 0 });
    first.xAxis.axisLabel = second.xAxis.axisLabel = label;
    first.series = [
      bar(numbers.dataset.closed, "closed", colours.good), bar(numbers.dataset.open, "open", colours.urgent),
      bar(numbers.dataset.false, "false", colours.critical), bar(numbers.dataset.merged, "merged", colours.normal),
    ];
    second.series = [
      rate(rates.dataset.rate, "rate", colours.accent), rate(rates.dataset.steps, "steps", colours.normal),
    ];
    return [first, second];
  }

  /** A line for each name over the periods, those with the most cases. */
  function drawPeriods(colours) {
    const periods = [...new Set(rows.map((row) => row.period))].sort();
    const sums = new Map();
    rows.forEach((row) => sums.set(row.key, (sums.get(row.key) || 0) + Number(row.number)));
    const keys = [...sums.keys()].sort((a, b) => sums.get(b) - sums.get(a)).slice(0, MOST_LINES);
    const at = new Map(rows.map((row) => [`${row.key}\n${row.period}`, row]));
    const line = (key, read, none) => ({
      name: rows.find((row) => row.key === key).name,
      type: "line",
      connectNulls: true,
      symbolSize: 5,
      data: periods.map((period) => (at.has(`${key}\n${period}`) ? read(at.get(`${key}\n${period}`)) : none)),
    });
    const first = frame(colours, periods, { minInterval: 1 });
    const second = frame(colours, periods, { max: 100, min: 0 });
    first.series = keys.map((key) => line(key, (row) => Number(row.number), 0));
    second.series = keys.map((key) => line(key, (row) => percent(row.rate), null));
    return [first, second];
  }

  function draw() {
    const options = (has_periods ? drawPeriods : drawRows)(look());
    charts.forEach((chart, index) => chart.setOption(options[index], true));
  }

  document.addEventListener("look-changed", draw);
  window.addEventListener("resize", () => charts.forEach((chart) => chart.resize()));
  draw();
})();
