// What an incident's page reaches in the community: the curve of its first device, commands and cameras.
"use strict";

(function () {
  // --- the curve -------------------------------------------------------------------------------------------------------

  async function draw() {
    const evidence = document.getElementById("evidence");
    if (evidence === null) return;
    const choice = document.getElementById("evidence-name");
    let told;
    try {
      const answer = await fetch(`${evidence.dataset.address}?name=${encodeURIComponent(choice.value)}`);
      if (!answer.ok || !(await curves.load(evidence.dataset.library))) return;
      told = await answer.json();
    } catch {
      return;
    }
    if (!evidence.isConnected) return;
    const option = choice.selectedOptions ? choice.selectedOptions[0] : choice;
    const isTruth = option.dataset.isBoolean !== undefined;
    evidence.hidden = false;
    const chart = document.getElementById("evidence-chart");
    chart.hidden = told.points.length === 0;
    document.getElementById("evidence-none").hidden = told.points.length > 0;
    if (told.points.length === 0) return;
    const words = isTruth ? { yes: evidence.dataset.yes, no: evidence.dataset.no } : null;
    curves.draw(chart, told.points, { words, marks: told.marks, mark: evidence.dataset.mark, span: told.span });
  }

  document.addEventListener("incident-shown", draw);
  document.addEventListener("look-changed", draw);
  document.addEventListener("change", (event) => { if (event.target.id === "evidence-name") draw(); });
  document.addEventListener("DOMContentLoaded", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  // --- commands --------------------------------------------------------------------------------------------------------

  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.target.id === "incident") draw();
    if (event.target.id !== "order-step") return;
    const question = document.getElementById("order-question");
    if (question !== null) question.focus();
    event.target.scrollIntoView({ block: "nearest" });
  });

  // A gateway that does not answer is told on the page, where there is something to tell it.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { xhr } = event.detail;
    if (xhr.status !== 503 || !event.target.closest("#incident")) return;
    if ((xhr.getResponseHeader("content-type") || "").startsWith("text/html") && !xhr.responseText.startsWith("<!doctype")) {
      event.detail.shouldSwap = true;
    }
  });

  document.addEventListener("click", (event) => {
    const cancels = event.target.closest("[data-cancels]");
    if (cancels === null) return;
    const form = document.getElementById(cancels.dataset.cancels);
    if (form === null) return;
    event.preventDefault();
    form.remove();
  });

  // --- cameras ---------------------------------------------------------------------------------------------------------

  document.addEventListener("htmx:afterSettle", () => {
    document.querySelectorAll("[data-copies]").forEach((button) => { button.hidden = false; });
  });

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copies]");
    if (button === null) return;
    const shown = document.getElementById(button.dataset.copies);
    try {
      await navigator.clipboard.writeText(shown.textContent);
    } catch {
      // Without https a browser has no clipboard for scripts: then it is marked, and Ctrl+C copies it.
      getSelection().selectAllChildren(shown);
      if (!document.execCommand("copy")) return;
    }
    button.textContent = button.dataset.done;
  });
})();
