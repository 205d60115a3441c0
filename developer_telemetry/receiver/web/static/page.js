// Updates the page while its tab is visible, copies texts, and sends the test report.
// Without this script, all of it works by reloading the page.
"use strict";

const UPDATE_MS = 8000;
const PENDING_MS = 700; // while figures are missing
const MAX_PAUSE_MS = 60000; // while the receiver does not answer
const TIMEOUT_MS = 10000;

const main = document.getElementById("main");
const statusLine = document.getElementById("freshness-of-page");
let failures = 0;
let timer = 0;

function showStatus(text) {
  if (statusLine.textContent !== text) statusLine.textContent = text;
}

function replaceSection(id, html) {
  const section = document.getElementById(id);
  // A section with the focus is not replaced until a later update.
  if (!section || section.dataset.html === html || section.contains(document.activeElement)) return;
  const open = section.querySelector("details")?.open;
  const scrolled = [...section.querySelectorAll(".scrolls")].map((element) => [element.scrollLeft, element.scrollTop]);
  section.dataset.html = html;
  section.innerHTML = html; // the receiver has escaped every value in it
  if (open) section.querySelector("details")?.setAttribute("open", "");
  section.querySelectorAll(".scrolls").forEach((element, number) => {
    [element.scrollLeft, element.scrollTop] = scrolled[number] ?? [0, 0];
  });
}

async function update() {
  const answer = await fetch("live" + location.search, {
    credentials: "same-origin",
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (answer.status === 403) {
    showStatus("signed out; reload the page to sign in");
    return false;
  }
  if (!answer.ok) throw new Error(answer.status);
  const state = await answer.json();
  if (state.empty !== (main.dataset.empty === "yes")) {
    location.reload(); // the first machine has reported, or the last one is gone
    return false;
  }
  for (const [id, html] of Object.entries(state.sections)) replaceSection(id, html);
  main.dataset.pending = state.pending ? "yes" : "no";
  return true;
}

async function updateAndWait() {
  timer = 0;
  try {
    if (!(await update())) return;
    failures = 0;
    showStatus("updated every 8 seconds");
  } catch {
    failures += 1;
    showStatus("the receiver does not answer; trying again");
  }
  wait();
}

function wait() {
  if (timer || document.hidden) return;
  const pause = main.dataset.pending === "yes" ? PENDING_MS : UPDATE_MS;
  timer = setTimeout(updateAndWait, Math.min(MAX_PAUSE_MS, pause * 2 ** Math.min(failures, 6)));
}

function copyBySelection(text) {
  // On plain http, browsers have no clipboard API.
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "unseen";
  document.body.append(field);
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  return isCopied;
}

async function copy(button) {
  const text = document.getElementById(button.dataset.copy).textContent;
  let isCopied = false;
  try {
    await navigator.clipboard.writeText(text);
    isCopied = true;
  } catch {
    isCopied = copyBySelection(text);
  }
  button.focus();
  button.textContent = isCopied ? "Copied" : "Copy failed; select the text";
  setTimeout(() => (button.textContent = "Copy"), 3000);
}

async function sendTest(form) {
  const outcome = document.getElementById("outcome");
  const button = form.querySelector("button");
  button.disabled = true;
  outcome.textContent = "Sending…";
  try {
    const answer = await fetch(form.action, {
      method: "POST",
      body: new URLSearchParams(new FormData(form)),
      headers: { "X-Part": "1" },
      credentials: "same-origin",
      signal: AbortSignal.timeout(30000),
    });
    const text = await answer.text();
    if (answer.ok) outcome.innerHTML = text; // escaped, too
    else outcome.textContent = `The test report was not sent: ${text}.`;
  } catch {
    outcome.textContent = "The receiver does not answer.";
  }
  button.disabled = false;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copy(button);
});
document.addEventListener("submit", (event) => {
  if (event.target.id !== "test-report") return;
  event.preventDefault();
  sendTest(event.target);
});
if (main.dataset.live === "yes") {
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      clearTimeout(timer);
      timer = 0;
    } else if (!timer) updateAndWait();
  });
  showStatus("updated every 8 seconds");
  wait();
}
