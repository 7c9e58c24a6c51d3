// Asks for the page again every two seconds and puts in what changed.
"use strict";
(() => {
  const main = document.getElementById("main");
  const live = document.getElementById("live");
  let shown = "";

  function busy() {
    const selection = document.getSelection();
    return document.hidden || (selection && selection.type === "Range");
  }

  function scrolled() {
    return [...main.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
  }

  function put(text) {
    const places = scrolled();
    const open = new Map([...main.querySelectorAll("details[id]")].map((one) => [one.id, one.open]));
    const focused = main.contains(document.activeElement)
      ? document.activeElement.getAttribute("href") : null;
    main.innerHTML = text;
    main.querySelectorAll(".scroll").forEach((one, n) => { one.scrollLeft = places[n] || 0; });
    for (const [id, was] of open) {
      const one = document.getElementById(id);
      if (one) one.open = was;
    }
    if (focused) {
      for (const one of main.querySelectorAll("a")) {
        if (one.getAttribute("href") === focused) { one.focus({preventScroll: true}); break; }
      }
    }
  }

  async function look() {
    if (!busy()) {
      try {
        const answer = await fetch(location.href, {headers: {"X-Fragment": "main"}});
        if (answer.status === 401) { location.reload(); return; }
        if (!answer.ok) throw new Error(String(answer.status));
        const text = await answer.text();
        if (text !== shown && !busy()) { put(text); shown = text; }
        live.textContent = "live";
        live.classList.remove("lost");
      } catch {
        live.textContent = "no answer";
        live.classList.add("lost");
      }
    }
    setTimeout(look, 2000);
  }

  main.querySelectorAll(".scroll.end").forEach((one) => { one.scrollLeft = one.scrollWidth; });
  setTimeout(look, 2000);
})();
