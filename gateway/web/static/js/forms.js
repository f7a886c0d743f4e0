// Forms about devices: a scanner's Enter goes on to the next field, a list of places is narrowed, one press sends once.
"use strict";

(function () {
  // A scanner types the code and then Enter: that must not send a form that is half empty.
  document.querySelectorAll("form[data-scanned]").forEach((form) => {
    form.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.target.id !== "code") return;
      event.preventDefault();
      const next = [...form.querySelectorAll("select, input")].find(
        (field) => field !== event.target && field.required && field.value === "",
      );
      (next || form.querySelector("button.is-main")).focus();
    });
  });

  document.querySelectorAll("select[data-sends]").forEach((select) => {
    select.addEventListener("change", () => select.form.submit());
  });

  document.querySelectorAll("form[data-once], form[data-scanned]").forEach((form) => {
    form.addEventListener("submit", () => {
      // After this event, or the button that was pressed would not be sent.
      setTimeout(() => form.querySelectorAll("button").forEach((button) => { button.disabled = true; }), 0);
    });
  });
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) document.querySelectorAll("form button").forEach((button) => { button.disabled = false; });
  });

  // What a page shows once is saved from the page itself: no second request could have it.
  document.querySelectorAll("button[data-saves]").forEach((button) => {
    button.hidden = false;
    button.addEventListener("click", () => {
      const text = document.getElementById(button.dataset.saves).value;
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
      link.download = button.dataset.name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  });

  document.querySelectorAll("input[data-narrows]").forEach((search) => {
    const select = document.getElementById(search.dataset.narrows);
    const all = [...select.options];
    const shown = document.querySelector(`[data-shows="${select.id}"]`);
    search.closest(".place-search").hidden = all.length < 8;
    function tell() {
      const chosen = select.selectedOptions[0];
      shown.textContent = chosen ? chosen.textContent : "";
    }
    search.addEventListener("input", () => {
      const parts = search.value.trim().toLowerCase().split(/\s+/);
      const kept = all.filter((option) => parts.every((part) => option.textContent.toLowerCase().includes(part)));
      select.replaceChildren(...kept);
      if (kept.length === 1) kept[0].selected = true;
      select.dispatchEvent(new Event("change"));
    });
    search.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      select.focus();
    });
    select.addEventListener("change", tell);
    tell();
  });

  // --- the same places on a map ---------------------------------------------------------------------------------------

  const holder = document.getElementById("place-map");
  if (holder === null || !window.L) return;
  const select = document.getElementById(holder.dataset.for);
  const placed = [...select.options].filter((option) => option.dataset.lon);
  const points = new Set(placed.map((option) => `${option.dataset.lon},${option.dataset.lat}`));
  if (points.size < 2) return;
  holder.hidden = false;
  const map = L.map(holder, { zoomControl: false, attributionControl: false, minZoom: 10, maxZoom: 20, zoomSnap: 0.5 });
  const { zoomIn, zoomOut } = holder.dataset;
  L.control.zoom({ zoomInTitle: zoomIn, zoomOutTitle: zoomOut }).addTo(map);
  const marks = new Map();
  const style = getComputedStyle(document.documentElement);
  placed.forEach((option) => {
    const mark = L.circleMarker([Number(option.dataset.lat), Number(option.dataset.lon)], {
      radius: 8,
      weight: 2,
      color: style.getPropertyValue("--accent"),
      fillColor: style.getPropertyValue("--accent"),
      fillOpacity: 0.15,
    });
    mark.bindTooltip(option.textContent, { direction: "top" });
    mark.on("click", () => {
      if (!option.isConnected) select.append(option);
      option.selected = true;
      select.dispatchEvent(new Event("change"));
    });
    mark.addTo(map);
    marks.set(option.value, mark);
  });
  map.fitBounds(L.latLngBounds(placed.map((o) => [Number(o.dataset.lat), Number(o.dataset.lon)])).pad(0.2));
  function show() {
    marks.forEach((mark, id) => mark.setStyle({ fillOpacity: id === select.value ? 0.9 : 0.15 }));
  }
  select.addEventListener("change", show);
  show();
})();
