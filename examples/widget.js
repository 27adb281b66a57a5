// A call widget that tells tenterhook what its visitor does, also while the page closes.
//
//   import { Emitter } from "./widget.js";
//   const events = new Emitter({ ingest: "https://events.example", app: "demo", key: "pk_…" });
//   events.emit("call_started", { agent: "Ada" });
//
// Two ways, both survive the page:
//   fetch   with keepalive; hears the answer and repeats what was not stored, under the same id
//   beacon  navigator.sendBeacon; the browser takes it and never tells what became of it
//
// Bodies are sent as text/plain: a browser then asks no preflight, which is one round trip less while it is leaving.

/** What fetch with keepalive and sendBeacon may have under way together, in bytes. Source: Fetch standard. */
const KEEPALIVE_BYTES = 65536;
/** Waits between repeats of an event that was not stored, in milliseconds. */
const WAITS_MS = [500, 2000, 5000];

export class Emitter {
  #address;
  #way;
  #bytesUnderWay = 0;

  /**
   * @param {{ingest: string, app: string, key: string, way?: "fetch" | "beacon",
   *          onOutcome?: (event: object, outcome: string) => void}} options
   *   key: a public one (pk_…); it is seen by everybody who opens the page, and may be.
   *   onOutcome: hears "accepted", "sent" (a beacon's answer is never seen), or why not.
   */
  constructor({ ingest, app, key, way = "fetch", onOutcome = () => {} }) {
    // A beacon sets no headers, so the key stands in the address.
    this.#address = `${ingest}/v1/apps/${encodeURIComponent(app)}/events?key=${encodeURIComponent(key)}`;
    this.#way = way;
    this.onOutcome = onOutcome;
  }

  /** Emit one event. Returns the event, with the id that makes a repeat of it recognisable. */
  emit(type, payload = null, orderingKey = undefined) {
    const event = { id: newId(), type, occurredAt: new Date().toISOString(), orderingKey, payload };
    if (this.#way === "beacon") this.#beacon(event);
    else this.#fetch(event, 0);
    return event;
  }

  #beacon(event) {
    const taken = navigator.sendBeacon(this.#address, JSON.stringify(event));
    if (taken) this.onOutcome(event, "sent");
    // The browser's room for beacons is full: fetch waits for its turn.
    else this.#fetch(event, 0);
  }

  async #fetch(event, repeats) {
    const body = JSON.stringify(event);
    // Above the browser's room a keepalive request is refused, so such a one goes out as an ordinary request,
    // which lives as long as its page.
    const keepalive = this.#bytesUnderWay + body.length <= KEEPALIVE_BYTES;
    if (keepalive) this.#bytesUnderWay += body.length;
    let again;
    try {
      const answer = await fetch(this.#address, { method: "POST", body, keepalive, credentials: "omit" });
      const told = await answer.json().catch(() => ({}));
      if (answer.ok) return this.onOutcome(event, told.duplicate ? "accepted before" : "accepted");
      again = answer.status === 429 || answer.status >= 500;
      if (!again) return this.onOutcome(event, `refused: ${told.code ?? answer.status}`);
    } catch {
      again = true;
    } finally {
      if (keepalive) this.#bytesUnderWay -= body.length;
    }
    if (repeats === WAITS_MS.length) return this.onOutcome(event, "given up");
    setTimeout(() => this.#fetch(event, repeats + 1), WAITS_MS[repeats]);
  }
}

/** 128 random bits; crypto.randomUUID needs https, this does not. */
function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The page around it: a card that plays a call, and a list of what became of its events. */
export function mount(root, settings) {
  const list = root.querySelector("[data-log]");
  const lines = new Map();
  const counts = { emitted: 0, done: 0 };

  function show(event, outcome) {
    let line = lines.get(event.id);
    if (!line) {
      line = list.appendChild(document.createElement("li"));
      line.innerHTML = "<code></code><span></span>";
      line.firstChild.textContent = event.type;
      lines.set(event.id, line);
      if (lines.size > 200) list.firstChild.remove();
    }
    line.lastChild.textContent = outcome;
    line.dataset.state = /^(accepted|sent)/.test(outcome) ? "good" : outcome === "…" ? "waiting" : "bad";
    root.querySelector("[data-count]").textContent = `${counts.done} of ${counts.emitted}`;
    line.scrollIntoView({ block: "nearest" });
  }

  const events = new Emitter({
    ...settings,
    onOutcome(event, outcome) {
      counts.done += 1;
      show(event, outcome);
    },
  });
  const call = { id: newId() };
  const payloads = {
    widget_opened: () => ({ page: location.pathname }),
    call_requested: () => ({ call: call.id, topic: "sales" }),
    call_started: () => ({ call: call.id, agent: "Ada" }),
    call_ended: () => ({ call: call.id, seconds: 42 }),
    widget_closed: () => ({ page: location.pathname }),
  };

  function emit(type) {
    if (type === "call_requested") call.id = newId();
    const orderingKey = type.startsWith("call_") ? call.id : undefined;
    counts.emitted += 1;
    const event = events.emit(type, payloads[type](), orderingKey);
    if (!lines.has(event.id)) show(event, "…");
    return event;
  }

  for (const button of root.querySelectorAll("[data-emit]")) {
    button.addEventListener("click", () => emit(button.dataset.emit));
  }
  root.querySelector("[data-story]").addEventListener("click", () => Object.keys(payloads).forEach(emit));
  return { emit, types: Object.keys(payloads), counts };
}
