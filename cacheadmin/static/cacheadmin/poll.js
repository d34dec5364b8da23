// Asks again every few seconds: not in a hidden tab, not while paused, ever more seldom while nobody answers.

const MOST = 60_000;
const PAUSED = "cacheadmin.paused";

/**
 * Call `take(answer)` with the JSON at `url()` every `every` ms.
 *
 * `button` pauses and goes on; that is remembered for all pages. `status` says when an answer stays away.
 */
export function poll({ url, every, take, button, status }) {
  let wait = every;
  let timer = null;
  let isAsking = false;
  let last = new Date();

  const isPaused = () => localStorage.getItem(PAUSED) === "1";
  const again = () => {
    clearTimeout(timer);
    timer = isPaused() || document.hidden ? null : setTimeout(ask, wait);
  };

  async function ask() {
    if (isAsking) return;
    isAsking = true;
    try {
      const response = await fetch(url(), { headers: { Accept: "application/json" }, signal: AbortSignal.timeout(15_000) });
      if (!response.ok) throw new Error(`HTTP ${response.status}`);
      take(await response.json());
      wait = every;
      last = new Date();
      say("");
    } catch {
      wait = Math.min(wait * 2, MOST);
      say(status?.dataset.cacheadminLate.replace("%s", last.toLocaleTimeString(document.documentElement.lang || undefined)));
    }
    isAsking = false;
    again();
  }

  function say(text) {
    if (status && status.textContent !== text) status.textContent = text;
  }

  function show() {
    if (!button) return;
    button.hidden = false;
    button.setAttribute("aria-pressed", String(!isPaused()));
    button.lastElementChild.textContent = isPaused() ? button.dataset.cacheadminPaused : button.dataset.cacheadminLive;
  }

  button?.addEventListener("click", () => {
    localStorage.setItem(PAUSED, isPaused() ? "0" : "1");
    show();
    isPaused() ? again() : ask();
  });
  document.addEventListener("visibilitychange", () => (document.hidden || isPaused() ? again() : ask()));
  show();
  again();
}

/** Put the parts of a page as the server renders them now in the place of those shown, but not under the keyboard. */
export function replaceParts(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  document.querySelectorAll("[data-cacheadmin-part]").forEach((part) => {
    const other = fresh.querySelector(`[data-cacheadmin-part="${part.dataset.cacheadminPart}"]`);
    if (!other || part.contains(document.activeElement) || part.innerHTML === other.innerHTML) return;
    part.replaceChildren(...other.childNodes);
  });
  return fresh;
}
