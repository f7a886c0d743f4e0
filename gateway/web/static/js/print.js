// The button that prints the page; without scripts the browser's own menu does it.
"use strict";

document.querySelectorAll("[data-prints]").forEach((button) => {
  button.hidden = false;
  button.addEventListener("click", () => window.print());
});
