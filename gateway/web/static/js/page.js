// What every page does: look, density, the token of forms that htmx sends, and menus that close again.
"use strict";

const sessions = (function () {
  const YEAR_S = 31536000;

  function keep(name, value) {
    document.cookie = `${name}=${value}; path=/; max-age=${YEAR_S}; samesite=lax`;
  }

  function offer(name) {
    const buttons = document.querySelectorAll(`[data-${name}-choice]`);
    buttons.forEach((button) => {
      button.addEventListener("click", () => {
        const chosen = button.dataset[`${name}Choice`];
        document.documentElement.dataset[name] = chosen;
        keep(name, chosen);
        buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
        document.dispatchEvent(new CustomEvent("look-changed"));
      });
    });
  }

  offer("theme");
  offer("density");

  // A page may be looked at for hours: the token is read when it is sent.
  document.addEventListener("htmx:configRequest", (event) => {
    event.detail.headers["X-CSRF-Token"] = document.querySelector("meta[name=csrf]").content;
  });

  // What somebody has sent and nobody has taken is said: nothing else on the page changes then.
  const trouble = document.getElementById("trouble");
  const isSent = (event) => event.detail.requestConfig && event.detail.requestConfig.verb !== "get";
  ["htmx:sendError", "htmx:timeout", "htmx:responseError"].forEach((name) => {
    document.addEventListener(name, (event) => {
      if (!isSent(event)) return;
      trouble.textContent = name === "htmx:responseError" ? trouble.dataset.refused : trouble.dataset.away;
      trouble.hidden = false;
      trouble.scrollIntoView({ block: "nearest" });
    });
  });
  document.addEventListener("htmx:beforeRequest", (event) => { if (isSent(event)) trouble.hidden = true; });

  document.addEventListener("click", (event) => {
    document.querySelectorAll("details.menu[open]").forEach((menu) => {
      if (!menu.contains(event.target)) menu.open = false;
    });
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    document.querySelectorAll("details.menu[open]").forEach((menu) => {
      menu.open = false;
      menu.querySelector("summary").focus();
    });
  });

  /** Whether a stream ended because the session did. */
  async function isOver() {
    try {
      return (await fetch("/board/alarms", { headers: { "HX-Request": "true", "X-Follows": "1" } })).status === 401;
    } catch {
      return false;
    }
  }

  return { isOver };
})();
