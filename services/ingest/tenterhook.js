// Tells tenterhook what happens on a page, also while the page closes. docs/web-pages.md explains it.
//
//   <script src="https://events.example/tenterhook.js" data-app="demo" data-key="pk_…"></script>
//   tenterhook("call_started", { agent: "Ada" });
//
// An event is kept before it is sent, and until its answer was heard. What got no answer is sent again under its id,
// on this page or on the next one: so it may be sent twice, and is delivered once, since ingest knows it by its id.
//
// Ingest serves this file without comments and spaces (page_script.py), below 2 KB.
(() => {
  const { src, dataset } = document.currentScript,
    { app, key, url = new URL(src).origin } = dataset,
    { early } = window.tenterhook ?? {},
    // The key stands in the address, since a beacon sets no headers; and no header of ours means no CORS preflight.
    address = `${url}/v1/apps/${encodeURIComponent(app)}/events?key=${encodeURIComponent(key)}`,
    suffix = ` tenterhook ${app}`,
    // By name, whether the request under way outlives the page.
    underWay = new Map();
  // What a browser lets outlive the page, in bytes, less what is under way. Source: Fetch standard.
  let room = 65536,
    failures = 0,
    timer,
    kept;

  try {
    // Unlike memory it is there on the next page. An item an event: no tab overwrites what another one keeps.
    kept = localStorage;
  } catch {
    // The visitor allows none.
  }
  kept ??= {};

  // A name begins with the time of its event.
  const names = () => Object.keys(kept).filter(name => name.endsWith(suffix)).sort(),
    beacon = body => navigator.sendBeacon?.(address, body);

  // Whether it was answered, so that the next one may follow.
  async function send(name) {
    const body = kept[name],
      { size } = new Blob([body]),
      keepalive = "keepalive" in Request.prototype && size <= room;
    let waitS;
    room -= size;
    try {
      // Where a request would end with the page it is there to hear the answer, and the beacon beside it to arrive.
      underWay.set(name, keepalive || beacon(body));
      const answer = await fetch(address, { method: "POST", body, keepalive, credentials: "omit" }),
        { status } = answer;
      if (status < 500 && status != 429 && status != 408) {
        delete kept[name];
        failures = 0;
        answer.ok || console.error("tenterhook:", body, await answer.text());
        dispatchEvent(new CustomEvent("tenterhook", { detail: { id: name.split(" ")[0], status } }));
        return true;
      }
      waitS = answer.headers.get("Retry-After");
    } catch {
      keepalive && beacon(body);
    } finally {
      underWay.delete(name);
      room += size;
    }
    // Twice as long each time, and at random, so that not all pages come at once; five minutes at most.
    timer ||= setTimeout(sendKept, 1e3 * Math.min(300, Math.max(waitS | 0, 2 ** failures++) * (1 + Math.random())));
  }

  async function sendKept() {
    timer = clearTimeout(timer);
    for (const name of names())
      // Ingest knows an id for a day; what is older might be delivered twice.
      if (Date.now() - parseInt(name, 36) > 828e5) delete kept[name];
      else if (kept[name] && !underWay.has(name) && !(await send(name))) return;
  }

  window.tenterhook = (type, payload, orderingKey) => {
    try {
      const now = new Date(),
        id = `${(+now).toString(36)}-${crypto.getRandomValues(new Uint32Array(4)).join("-")}`,
        name = id + suffix,
        body = JSON.stringify({ id, type, occurredAt: now, orderingKey, payload });
      if (names().length > 99) throw "100 events wait";
      try {
        kept[name] = body;
      } catch {
        // It is full. What it has is for the next page; this one goes on in memory.
        kept = { [name]: body };
      }
      timer || send(name);
      return id;
    } catch (error) {
      console.error("tenterhook:", type, error);
    }
  };

  addEventListener("online", sendKept);
  addEventListener("pagehide", () => names().map(name => underWay.get(name) || beacon(kept[name])));
  early?.map(event => tenterhook(...event));
  sendKept();
})();
