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

  // --- what was written when the session had ended --------------------------------------------------------------------

  // A form that is sent after the session has ended leads to the sign-in: what was written waits in this tab until the
  // same account is in again, and stands in the same form. Passwords and secrets never wait.
  const WRITTEN = "written";
  const SECRET = "[type=hidden], [type=password], [type=file], [name=secret]";
  const account = document.querySelector("meta[name=account]");

  const nameForm = (form) => {
    const verb = form.querySelector("[name=verb]");
    return `${form.getAttribute("action")} ${verb === null ? "" : verb.value}`;
  };

  function readWritten() {
    try {
      return JSON.parse(sessionStorage.getItem(WRITTEN));
    } catch {
      return null;
    }
  }

  function forget() {
    try {
      sessionStorage.removeItem(WRITTEN);
    } catch {
      // A browser that keeps nothing has nothing to forget.
    }
  }

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (account === null || form.method !== "post") return;
    if (form.getAttribute("action") === "/logout") {
      forget();
      return;
    }
    const fields = [...form.elements].filter((field) => field.name && !field.matches(`button, fieldset, ${SECRET}`));
    const values = fields.map((field) => [field.name, field.value, field.checked === true]);
    if (values.length === 0) return;
    try {
      const written = { account: account.content, form: nameForm(form), values };
      sessionStorage.setItem(WRITTEN, JSON.stringify(written));
    } catch {
      // Nothing waits then.
    }
  }, true);

  function putBack() {
    const written = readWritten();
    if (written === null || account === null) return;
    if (!written.isAway || written.account !== account.content) {
      forget();
      return;
    }
    const form = [...document.forms].find((one) => nameForm(one) === written.form);
    if (form === undefined) return;
    forget();
    written.values.forEach(([name, value, isChecked]) => {
      const field = [...form.elements].find((one) => {
        const isChoice = one.matches("[type=radio], [type=checkbox]");
        return one.name === name && !one.matches(SECRET) && (!isChoice || one.value === value);
      });
      if (field === undefined) return;
      if (field.matches("[type=radio], [type=checkbox]")) field.checked = isChecked;
      else field.value = value;
    });
    for (let place = form.closest("details"); place !== null; place = place.parentElement.closest("details")) {
      place.open = true;
    }
    form.scrollIntoView({ block: "center" });
  }

  document.addEventListener("htmx:afterRequest", (event) => {
    if (isSent(event) && event.detail.xhr && event.detail.xhr.status !== 0 && event.detail.xhr.status !== 401) forget();
  });
  document.addEventListener("htmx:afterSwap", putBack);
  window.addEventListener("pageshow", () => {
    const written = readWritten();
    if (account === null && written !== null) {
      // This is the sign-in.
      sessionStorage.setItem(WRITTEN, JSON.stringify({ ...written, isAway: true }));
    }
    putBack();
  });

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
