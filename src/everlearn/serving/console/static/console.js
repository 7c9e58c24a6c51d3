// Follows what changes, and lets the review queue be worked by keyboard.
"use strict";
(() => {
  const main = document.getElementById("main");
  const live = document.getElementById("live");
  const PAUSE = 1000; // ms between two looks, however fast things change
  const ANYWAY = 30000; // ms after which times ("2 min ago") are asked for again
  let parts = pieces(main.innerHTML).map((one) => one.outerHTML); // as they were sent last
  let stream = null, looking = false, again = false, last = Date.now(), timer = 0;

  function state(text, lost) {
    live.hidden = false;
    live.textContent = text;
    live.classList.toggle("lost", lost);
  }

  // --- what is shown ---

  function selecting() {
    const selection = document.getSelection();
    return selection && selection.type === "Range" && main.contains(selection.anchorNode);
  }

  function typing() {
    const one = document.activeElement;
    return one && main.contains(one) && one.matches("input:not([type=hidden]), textarea, select");
  }

  function pieces(text) {
    const made = document.createElement("template");
    made.innerHTML = text;
    return [...made.content.children];
  }

  function swap(old, made) {
    const opened = new Map([...old.querySelectorAll("details[id]")].map((one) => [one.id, one.open]));
    const scrolled = [...old.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
    const focus = old.contains(document.activeElement) ? document.activeElement : null;
    const href = focus && focus.getAttribute("href");
    old.replaceWith(made);
    for (const one of made.querySelectorAll("details[id]")) {
      if (opened.has(one.id)) one.open = opened.get(one.id);
    }
    made.querySelectorAll(".scroll").forEach((one, n) => {
      one.scrollLeft = n < scrolled.length ? scrolled[n] : one.scrollWidth;
    });
    const same = href && [...made.querySelectorAll("a")].find((one) => one.getAttribute("href") === href);
    const target = same || (focus && made.querySelector(focus.tagName));
    if (target) target.focus({preventScroll: true});
  }

  function put(text) {
    const made = pieces(text), shown = [...main.children];
    const texts = made.map((one) => one.outerHTML);
    const alike = made.length === shown.length
      && made.every((one, n) => one.tagName === shown[n].tagName && one.id === shown[n].id);
    made.forEach((one, n) => {
      if (!alike) return;
      const still = shown[n].hasAttribute("data-still");
      if (!still && parts[n] !== texts[n]) swap(shown[n], one);
    });
    if (!alike && !main.querySelector("[data-still]")) main.replaceChildren(...made);
    parts = texts;
    count();
  }

  async function look() {
    clearTimeout(timer);
    if (looking) { again = true; return; }
    if (document.hidden || selecting() || typing()) { timer = setTimeout(look, PAUSE); return; }
    looking = true;
    again = false;
    try {
      const answer = await fetch(location.href, {headers: {"X-Fragment": "main"}});
      if (answer.status === 401) { location.reload(); return; }
      if (answer.ok) put(await answer.text());
    } catch {
      state("not connected", true);
    }
    looking = false;
    last = Date.now();
    timer = setTimeout(look, again ? PAUSE : ANYWAY);
  }

  function soon() {
    clearTimeout(timer);
    timer = setTimeout(look, Math.max(0, last + PAUSE - Date.now()));
    if (looking) again = true;
  }

  // --- what changes ---

  function follow() {
    if (stream || document.hidden || !main.dataset.stream) return; // a form stays as it is
    const wanted = main.dataset.on.split(" ").filter(Boolean);
    stream = new EventSource(main.dataset.stream);
    stream.addEventListener("begin", () => { state("live", false); soon(); });
    stream.addEventListener("change", (event) => {
      const names = event.data.split(" ");
      if (!wanted.length || names.some((name) => wanted.includes(name))) soon();
    });
    stream.onerror = () => {
      state("not connected", true);
      if (stream.readyState !== EventSource.CLOSED) return; // it tries again by itself
      leave();
      setTimeout(follow, 3000);
      look(); // perhaps the key is not valid any more
    };
  }

  function leave() {
    if (stream) stream.close();
    stream = null;
  }

  // --- keys ---

  let sent = false; // a key that is pressed twice answers once

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const at = event.target;
    if (at.matches("input, textarea, select")) return;
    if (event.key === "Enter" && at.matches("a, button, summary")) return;
    const one = main.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    if (!one) return;
    event.preventDefault();
    if (!sent) one.click();
  }

  function count() {
    for (const one of main.querySelectorAll("time[data-until]")) {
      const left = Math.round(Number(one.dataset.until) / 1e6 - Date.now() / 1000);
      one.textContent = left > 120 ? `${Math.round(left / 60)} min` : `${Math.max(0, left)} s`;
    }
  }

  document.addEventListener("keydown", key);
  document.addEventListener("submit", (event) => {
    if (sent) event.preventDefault();
    sent = true;
  });
  window.addEventListener("pageshow", () => { sent = false; follow(); });
  window.addEventListener("pagehide", leave);
  document.addEventListener("visibilitychange", () => (document.hidden ? leave() : follow()));
  main.querySelectorAll(".scroll.end").forEach((one) => { one.scrollLeft = one.scrollWidth; });
  setInterval(count, 1000);
  count();
  follow();
})();
