// A call widget that tells tenterhook what its visitor does, with the tenterhook.js that ingest serves.
//
// A page whose ingest is known writes the script into its HTML (docs/web-pages.md); this one is told it by its address.

/**
 * Load tenterhook.js, so that `tenterhook(type, payload, orderingKey)` is there.
 *
 * @param {{ingest: string, app: string, key: string}} settings
 *   key: a public one (pk_…); it is seen by everybody who opens the page, and may be.
 */
export function load({ ingest, app, key }) {
  return new Promise((loaded, failed) => {
    const script = document.createElement("script");
    Object.assign(script.dataset, { app, key });
    script.onload = loaded;
    script.onerror = () => failed(new Error(`${script.src} cannot be loaded`));
    script.src = `${ingest}/tenterhook.js`;
    document.head.append(script);
  });
}

/** The page around it: a card that plays a call, and a list of what became of its events. */
export function mount(root) {
  const list = root.querySelector("[data-log]");
  const lines = new Map();
  const counts = { emitted: 0, done: 0 };

  function show(id, type, outcome) {
    let line = lines.get(id);
    if (!line) {
      line = list.appendChild(document.createElement("li"));
      line.innerHTML = "<code></code><span></span>";
      line.firstChild.textContent = type;
      lines.set(id, line);
      if (lines.size > 200) list.firstChild.remove();
    }
    line.lastChild.textContent = outcome;
    line.dataset.state = outcome === "accepted" ? "good" : outcome === "…" ? "waiting" : "bad";
    root.querySelector("[data-count]").textContent = `${counts.done} of ${counts.emitted}`;
    line.scrollIntoView({ block: "nearest" });
  }

  // What became of an event; until then it waits, for its answer or for a network.
  addEventListener("tenterhook", ({ detail: { id, status } }) => {
    if (!lines.has(id)) return; // of another page
    counts.done += 1;
    show(id, null, status < 300 ? "accepted" : `refused: ${status}`);
  });

  const call = { id: null };
  const payloads = {
    widget_opened: () => ({ page: location.pathname }),
    call_requested: () => ({ call: call.id, topic: "sales" }),
    call_started: () => ({ call: call.id, agent: "Ada" }),
    call_ended: () => ({ call: call.id, seconds: 42 }),
    widget_closed: () => ({ page: location.pathname }),
  };

  /** Emit one event. Returns its id. */
  function emit(type) {
    if (type === "call_requested" || !call.id) call.id = `call_${Date.now()}`;
    const id = tenterhook(type, payloads[type](), type.startsWith("call_") ? call.id : undefined);
    counts.emitted += 1;
    if (id) show(id, type, "…");
    return id;
  }

  for (const button of root.querySelectorAll("[data-emit]")) {
    button.addEventListener("click", () => emit(button.dataset.emit));
  }
  root.querySelector("[data-story]").addEventListener("click", () => Object.keys(payloads).forEach(emit));
  return { emit, types: Object.keys(payloads), counts };
}
