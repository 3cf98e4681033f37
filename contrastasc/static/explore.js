// The embedding explorer's front end: maps of the same clips side by side, drawn on canvas, with the sound one click away.
// Python holds the embeddings and answers questions (`ask`); everything that is only looking happens here.

const CSS = BASE + `
.cx-main { display: grid; grid-template-columns: minmax(0, 1fr) 250px; grid-template-rows: auto 1fr; gap: 8px; }
.cx-views { display: grid; gap: 8px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 250px), 1fr)); align-content: start; }
.cx-view { position: relative; margin: 0; min-width: 0; border: 1px solid var(--line); border-radius: 4px; }
.cx-view figcaption { padding: 3px 7px; border-bottom: 1px solid var(--line); min-height: 2.7em; }
.cx-view figcaption small { display: block; opacity: .78; }
.cx-plane { position: relative; height: 330px; } .cx-plane canvas { position: absolute; inset: 0; width: 100%; height: 100%; display: block; }
.cx-view progress { position: absolute; left: 0; bottom: 0; width: 100%; height: 5px; }
.cx-tip { position: absolute; z-index: 3; pointer-events: none; max-width: 240px; padding: 3px 7px; border-radius: 4px; white-space: pre-line;
  background: var(--jp-layout-color0, Canvas); border: 1px solid var(--line); box-shadow: 0 2px 8px #0004; }
.cx-side { min-width: 0; grid-row: 1 / span 2; grid-column: 2; display: flex; flex-direction: column; gap: 8px; }
.cx-side h4, .cx-panel h4 { margin: 0 0 3px; font-size: 13px; }
.cx-legend { display: flex; flex-wrap: wrap; gap: 2px; max-height: 300px; overflow-y: auto; }
.cx-legend button { display: flex; align-items: center; gap: 5px; border-color: transparent; background: none; padding: 0 4px; text-align: left; }
.cx-legend button[aria-pressed=false] { opacity: .4; text-decoration: line-through; } .cx-legend button[aria-pressed=true] { background: none; color: inherit; }
.cx-ramp { height: 12px; border: 1px solid var(--line); } .cx-ends { display: flex; justify-content: space-between; }
.cx-clip canvas { width: 100%; height: 150px; display: block; } .cx-clip dl { display: grid; grid-template-columns: fit-content(40%) 1fr; gap: 0 8px; margin: 4px 0; }
.cx .cx-clip dl dt { opacity: .7; float: none; width: auto; margin: 0; } .cx .cx-clip dl dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
.cx-near { display: flex; flex-wrap: wrap; gap: 3px; max-height: 190px; overflow-y: auto; }
.cx-panel { min-width: 0; border-top: 1px solid var(--line); padding-top: 6px; overflow-x: auto; }
.cx-grid td { padding: 0; } .cx-grid button { display: block; width: 38px; height: 24px; border-radius: 0; border-color: transparent; padding: 0; } .cx-grid button:disabled { opacity: 1; }
.cx-grid th.cx-down { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; padding: 4px 0; }
@container (max-width: 640px) { .cx-main { grid-template-columns: minmax(0, 1fr); } .cx-side { grid-row: 2; grid-column: 1; } .cx-plane { height: 270px; } }
`;

const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

// A marker as a path around (0, 0); radius 1 is the size of the circle.
function trace(ctx, shape, r) {
  const polygon = (n, turn, inner) => {
    for (let i = 0; i < n; i++) {
      const a = turn + 2 * Math.PI * i / n, s = inner && i % 2 ? inner : 1.2;
      ctx.lineTo(r * s * Math.sin(a), -r * s * Math.cos(a));
    }
  };
  const cross = (turn) => {
    const w = 0.38, l = 1.15;
    for (const [x, y] of [[-w, -l], [w, -l], [w, -w], [l, -w], [l, w], [w, w], [w, l], [-w, l], [-w, w], [-l, w], [-l, -w], [-w, -w]])
      ctx.lineTo(r * (x * Math.cos(turn) - y * Math.sin(turn)), r * (x * Math.sin(turn) + y * Math.cos(turn)));
  };
  ctx.beginPath();
  if (shape === "o") ctx.arc(0, 0, r, 0, 7);
  else if (shape === "s") ctx.rect(-0.9 * r, -0.9 * r, 1.8 * r, 1.8 * r);
  else if (shape === "D") polygon(4, 0);
  else if (shape === "d") for (const [x, y] of [[0, -1.3], [0.75, 0], [0, 1.3], [-0.75, 0]]) ctx.lineTo(r * x, r * y);
  else if (shape === "p") polygon(5, 0);
  else if (shape === "*") polygon(10, 0, 0.55);
  else if (shape === "P") cross(0);
  else if (shape === "X") cross(Math.PI / 4);
  else polygon(3, { "^": 0, "v": Math.PI, ">": Math.PI / 2, "<": -Math.PI / 2 }[shape]);
  ctx.closePath();
}

// The same marker as a list of pixels and how much of each it covers, to be written straight into an image.
const stamps = new Map();
function stamp(shape, radius) {
  const key = shape + radius;
  if (stamps.has(key)) return stamps.get(key);
  const half = Math.ceil(1.4 * radius), size = 2 * half + 1, canvas = make("canvas", { width: size, height: size });
  const ctx = canvas.getContext("2d");
  ctx.translate(half + 0.5, half + 0.5); trace(ctx, shape, radius); ctx.fill();
  const alpha = ctx.getImageData(0, 0, size, size).data, dots = [];
  for (let i = 0; i < size * size; i++) if (alpha[4 * i + 3] > 20) dots.push(i % size - half, Math.floor(i / size) - half, alpha[4 * i + 3]);
  stamps.set(key, Int16Array.from(dots));
  return stamps.get(key);
}

// One map.
class View {
  constructor(app, index) {
    this.app = app; this.index = index; this.zoom = 1; this.cx = 0.5; this.cy = 0.5; this.n = 0;
    this.title = make("span"); this.note = make("small");
    this.points = make("canvas", { "aria-hidden": "true" });
    this.over = make("canvas", { tabIndex: 0, role: "application" });
    this.tip = make("div", { class: "cx-tip", hidden: true });
    this.bar = make("progress", { max: 1, hidden: true });
    this.plane = make("div", { class: "cx-plane" }, this.points, this.over, this.tip, this.bar);
    this.node = make("figure", { class: "cx-view" }, make("figcaption", {}, this.title, this.note), this.plane);
    this.listen();
    this.watch = new ResizeObserver(() => this.resize()); this.watch.observe(this.plane);
  }

  // Positions in a unit square, as they were, as they will be, and as they are now on the way.
  set(map) {
    const raw = new Float32Array(bytes(map.xy)), n = raw.length / 2, to = new Float32Array(2 * n);
    const low = [Infinity, Infinity], high = [-Infinity, -Infinity];
    for (let i = 0; i < 2 * n; i++) { low[i % 2] = Math.min(low[i % 2], raw[i]); high[i % 2] = Math.max(high[i % 2], raw[i]); }
    const span = Math.max(high[0] - low[0], high[1] - low[1], 1e-9);
    for (let i = 0; i < 2 * n; i++) to[i] = 0.5 + (raw[i] - (low[i % 2] + high[i % 2]) / 2) / span;
    const same = this.to && this.to.length <= to.length;
    this.from = same ? Float32Array.from(to, (v, i) => i < this.at.length ? this.at[i] : v) : to;
    this.to = to; this.at = Float32Array.from(this.from); this.n = n;
    this.near = new Uint32Array(bytes(map.near)); this.torn = new Uint8Array(bytes(map.torn));
    this.shown = new Uint32Array(bytes(map.shown)); this.faked = new Uint8Array(bytes(map.faked));
    this.k = n ? this.near.length / n : 0;
    this.title.textContent = map.title; this.note.textContent = map.note;
    this.over.setAttribute("aria-label", `Map ${map.title}, ${n} clips. Arrow keys walk to neighbours, space plays.`);
    this.started = same && !matchMedia("(prefers-reduced-motion: reduce)").matches ? performance.now() : -1e9;
    this.app.redraw();
  }

  resize() {
    this.dpr = Math.min(window.devicePixelRatio || 1, 2);
    this.w = this.plane.clientWidth; this.h = this.plane.clientHeight;
    for (const c of [this.points, this.over]) { c.width = Math.max(1, this.w * this.dpr); c.height = Math.max(1, this.h * this.dpr); }
    this.image = null; this.app.redraw();
  }

  get scale() { return 0.92 * Math.min(this.w, this.h) * this.zoom; }
  screen(i) { return [this.w / 2 + (this.at[2 * i] - this.cx) * this.scale, this.h / 2 - (this.at[2 * i + 1] - this.cy) * this.scale]; }

  draw(now) {
    if (!this.n || !this.w) return false;
    const share = clamp((now - this.started) / 700, 0, 1), ease = share * share * (3 - 2 * share);
    if (this.moving !== false || share < 1) for (let i = 0; i < this.at.length; i++) this.at[i] = this.from[i] + ease * (this.to[i] - this.from[i]);
    this.moving = share < 1;
    const ctx = this.points.getContext("2d"), w = this.points.width, h = this.points.height, app = this.app;
    this.image ??= ctx.createImageData(w, h);
    const pixels = new Uint32Array(this.image.data.buffer);
    pixels.fill(0);
    const k = this.scale * this.dpr, x0 = w / 2 - this.cx * k, y0 = h / 2 + this.cy * k, radius = app.radius * this.dpr;
    const stampOf = {}, grey = stamp("o", 0.75 * radius);
    for (let pass = 0; pass < 2; pass++)
      for (let i = 0; i < this.n; i++) {
        if (app.lit[i] !== pass) continue;
        const x = Math.round(x0 + this.at[2 * i] * k), y = Math.round(y0 - this.at[2 * i + 1] * k);
        if (x < -9 || y < -9 || x > w + 9 || y > h + 9) continue;
        const dots = pass ? (stampOf[app.shape[i]] ??= stamp(app.shape[i], radius)) : grey, ink = pass ? app.ink[i] : app.grey;
        for (let d = 0; d < dots.length; d += 3) {
          const px = x + dots[d], py = y + dots[d + 1];
          if (px < 0 || py < 0 || px >= w || py >= h) continue;
          const at = py * w + px, a = dots[d + 2];
          if (a > 200 || (pixels[at] >>> 24) < a) pixels[at] = (ink & 0xffffff) | (a << 24);
        }
      }
    ctx.putImageData(this.image, 0, 0);
    this.drawOver();
    return this.moving;
  }

  // What lies above the points: lines to neighbours, marks, the lasso.
  drawOver() {
    const ctx = this.over.getContext("2d"), app = this.app, clicked = app.clicked;
    ctx.setTransform(this.dpr, 0, 0, this.dpr, 0, 0);
    ctx.clearRect(0, 0, this.w, this.h);
    const ring = (i, r, colour, dash = []) => {
      const [x, y] = this.screen(i);
      ctx.setLineDash(dash); ctx.strokeStyle = colour; ctx.lineWidth = 2; ctx.beginPath(); ctx.arc(x, y, r, 0, 7); ctx.stroke();
    };
    if (clicked >= 0 && clicked < this.n) {
      const [x, y] = this.screen(clicked), k = this.k;
      for (let j = 0; j < k; j++) {
        const torn = this.torn[clicked * k + j], [a, b] = this.screen(this.near[clicked * k + j]);
        ctx.setLineDash(torn ? [5, 4] : []); ctx.strokeStyle = torn ? "#D55E00" : app.fore; ctx.lineWidth = torn ? 1.6 : 1;
        ctx.beginPath(); ctx.moveTo(x, y); ctx.lineTo(a, b); ctx.stroke();
      }
      for (let j = 0; j < k; j++) if (this.faked[clicked * k + j]) {
        const [a, b] = this.screen(this.shown[clicked * k + j]);
        ctx.setLineDash([]); ctx.strokeStyle = "#D55E00"; ctx.lineWidth = 2;
        ctx.beginPath(); ctx.moveTo(a - 5, b - 5); ctx.lineTo(a + 5, b + 5); ctx.moveTo(a + 5, b - 5); ctx.lineTo(a - 5, b + 5); ctx.stroke();
      }
      ring(clicked, 9, app.fore);
    }
    for (const i of app.fresh) if (i < this.n) ring(i, 8, "#009E73", [3, 2]);
    for (const i of app.shots.keys()) if (i < this.n) ring(i, 7, "#CC79A7");
    for (const i of app.found) if (i < this.n) ring(i, 6, "#E69F00");
    if (app.walked >= 0 && app.walked < this.n) ring(app.walked, 11, "#E69F00");
    if (app.hovered >= 0 && app.hovered < this.n) ring(app.hovered, 7, app.fore, [2, 2]);
    if (app.means) this.drawMeans(ctx);
    if (this.path?.length > 1) {
      ctx.setLineDash([4, 3]); ctx.strokeStyle = app.fore; ctx.fillStyle = "#0072B222"; ctx.lineWidth = 1.5; ctx.beginPath();
      for (const [x, y] of this.path) ctx.lineTo(x, y);
      ctx.closePath(); ctx.fill(); ctx.stroke();
    }
    ctx.setLineDash([]);
  }

  drawMeans(ctx) {
    const column = this.app.columns[this.app.label];
    ctx.font = "600 11px system-ui, sans-serif"; ctx.textAlign = "center"; ctx.setLineDash([]);
    (this.app.medoids[this.index] || []).forEach((i, c) => {
      const [x, y] = this.screen(i), [colour, shape] = this.app.style(c), text = words(column.names[c]);
      ctx.save(); ctx.translate(x, y); trace(ctx, shape, 8); ctx.fillStyle = colour; ctx.fill(); ctx.strokeStyle = this.app.fore; ctx.lineWidth = 1.5; ctx.stroke(); ctx.restore();
      ctx.lineWidth = 3; ctx.strokeStyle = this.app.back; ctx.strokeText(text, x, y - 13); ctx.fillStyle = this.app.fore; ctx.fillText(text, x, y - 13);
    });
  }

  // The point under a place of the screen, or -1.
  hit(x, y, reach = 11) {
    let best = -1, least = reach * reach;
    const k = this.scale, x0 = this.w / 2 - this.cx * k, y0 = this.h / 2 + this.cy * k;
    for (let i = 0; i < this.n; i++) {
      const dx = x0 + this.at[2 * i] * k - x, dy = y0 - this.at[2 * i + 1] * k - y, d = dx * dx + dy * dy - (this.app.lit[i] ? 4 : 0);
      if (d < least) { least = d; best = i; }
    }
    return best;
  }

  inside(path) {
    const found = [];
    for (let i = 0; i < this.n; i++) {
      const [x, y] = this.screen(i);
      let odd = false;
      for (let a = 0, b = path.length - 1; a < path.length; b = a++) {
        const [xa, ya] = path[a], [xb, yb] = path[b];
        if ((ya > y) !== (yb > y) && x < (xb - xa) * (y - ya) / (yb - ya) + xa) odd = !odd;
      }
      if (odd) found.push(i);
    }
    return found;
  }

  place(event) { const box = this.over.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; }

  listen() {
    const over = this.over, app = this.app;
    over.addEventListener("pointerdown", (e) => {
      if (e.button) return;
      over.setPointerCapture(e.pointerId); over.focus({ preventScroll: true });
      this.down = this.place(e); this.was = [this.cx, this.cy]; this.dragged = false;
    });
    over.addEventListener("pointermove", (e) => {
      const [x, y] = this.place(e);
      if (!this.down) return this.hover(x, y);
      const [x0, y0] = this.down;
      if (!this.dragged && Math.hypot(x - x0, y - y0) < 4) return;
      this.dragged = true; this.tip.hidden = true;
      if (app.tool === "lasso") (this.path ??= [this.down]).push([x, y]);
      else if (app.tool === "box") this.path = [[x0, y0], [x, y0], [x, y], [x0, y]];
      else { this.cx = this.was[0] - (x - x0) / this.scale; this.cy = this.was[1] + (y - y0) / this.scale; return app.redraw(); }
      this.drawOver();
    });
    over.addEventListener("pointerup", (e) => {
      const [x, y] = this.place(e), path = this.path;
      if (!this.down) return;
      this.down = this.path = null;
      if (path) return app.choose(this.inside(path), e.shiftKey);
      if (this.dragged) return;
      const i = this.hit(x, y);
      if (i < 0) return;
      if (app.tool === "shots") app.toggleShot(i);
      app.last = this.index; app.open(i, true);
    });
    over.addEventListener("pointercancel", () => { this.down = this.path = null; this.drawOver(); });
    over.addEventListener("pointerleave", () => { if (!this.down) this.hover(-99, -99); });
    over.addEventListener("dblclick", () => this.fit());
    over.addEventListener("wheel", (e) => {
      e.preventDefault();
      const [x, y] = this.place(e);
      this.magnify(Math.exp(-clamp(e.deltaY, -120, 120) / 300), x, y);
    }, { passive: false });
    over.addEventListener("keydown", (e) => this.key(e));
  }

  hover(x, y) {
    const i = this.hit(x, y);
    this.tip.hidden = i < 0;
    if (i >= 0) {
      const [px, py] = this.screen(i);
      this.tip.textContent = this.app.describe(i, "\n");
      this.tip.style.left = px < this.w / 2 ? `${px + 14}px` : ""; this.tip.style.right = px < this.w / 2 ? "" : `${this.w - px + 14}px`;
      this.tip.style.top = py < this.h / 2 ? `${py + 10}px` : ""; this.tip.style.bottom = py < this.h / 2 ? "" : `${this.h - py + 10}px`;
    }
    if (i !== this.app.hovered) { this.app.hovered = i; this.app.overlays(); }
  }

  magnify(by, x = this.w / 2, y = this.h / 2) {
    const zoom = clamp(this.zoom * by, 0.5, 200), change = 1 - this.zoom / zoom;
    this.cx += change * (x - this.w / 2) / this.scale;
    this.cy -= change * (y - this.h / 2) / this.scale;
    this.zoom = zoom; this.app.redraw();
  }

  fit() { this.zoom = 1; this.cx = this.cy = 0.5; this.app.redraw(); }

  key(e) {
    const app = this.app, step = 40 / this.scale;
    const does = e.shiftKey ? {
      ArrowLeft: () => { this.cx -= step; }, ArrowRight: () => { this.cx += step; }, ArrowUp: () => { this.cy += step; }, ArrowDown: () => { this.cy -= step; },
    } : {
      ArrowRight: () => app.walk(this, 1), ArrowLeft: () => app.walk(this, -1), ArrowDown: () => app.settle(), ArrowUp: () => app.back_up(),
      Enter: () => app.settle(), " ": () => app.play(app.walked >= 0 ? app.walked : app.clicked), Escape: () => app.clear(),
      s: () => app.toggle(app.walked >= 0 ? app.walked : app.clicked), k: () => app.toggleShot(app.walked >= 0 ? app.walked : app.clicked), f: () => this.fit(),
    };
    const also = { "+": () => this.magnify(1.25), "=": () => this.magnify(1.25), "-": () => this.magnify(0.8) };
    const act = does[e.key] || also[e.key];
    if (!act) return;
    e.preventDefault(); e.stopPropagation(); act(); app.redraw();
  }

  stop() { this.watch.disconnect(); }
}

// The whole.
class Explorer {
  constructor(model, el) {
    this.model = model; this.views = []; this.lit = new Uint8Array(0); this.shape = []; this.ink = new Uint32Array(0);
    this.hovered = this.walked = -1; this.steps = []; this.step = 0; this.shots = new Map(); this.found = []; this.clips = new Map(); this.asked = new Map(); this.number = 0;
    this.tool = "move"; this.means = false; this.off = new Set(); this.times = [];
    this.root = make("div", { class: "cx" }, make("style", {}, CSS));
    this.build(); el.append(this.root); this.root.explorer = this;
    this.theme();
    this.watch = setInterval(() => { if (this.theme()) { this.paint(); this.opened(false); } }, 300);  // no event tells when a theme's style sheet is there
    const on = (names, act) => names.split(" ").forEach((n) => model.on(`change:${n}`, act, this));
    on("columns", () => { this.readColumns(); this.paint(); }); on("map0 map1 map2 map3", () => this.readMaps()); on("colour", () => this.recolour());
    on("selected", () => this.readSelected()); on("kept", () => this.paint()); on("clicked", () => this.opened()); on("fresh", () => this.overlays());
    on("busy", () => this.progress()); on("note", () => { this.note.textContent = model.get("note"); }); on("quality", () => this.panel());
    on("method neighbours min_dist", () => this.settings()); on("guesses", () => this.panel());
    model.on("msg:custom", (message, buffers) => this.answer(message, buffers), this);
    this.readColumns(); this.readSelected(); this.readMaps(); this.settings(); this.progress(); this.opened(false); this.paint(); this.panel();
    this.note.textContent = model.get("note");
    if (model.get("alone")) [this.method, this.neighbours, this.minDist, this.filter, this.tools.shots].forEach((n) => { (n.closest("label") || n).hidden = true; });
    this.hideTwin();
  }

  // The picture above the widget stands for it where no kernel lives; here it would be one map too many.
  hideTwin() {
    const above = this.model.get("displayed") && this.root.closest(".jp-OutputArea-child")?.previousElementSibling;
    if (above?.querySelector("img")) above.style.display = "none";
  }

  get clicked() { return this.model.get("clicked"); }
  get fresh() { return this.model.get("fresh"); }
  get label() { return this.model.get("label"); }
  get medoids() { return this.model.get("medoids"); }

  set(name, value) { this.model.set(name, value); this.model.save_changes(); }

  // Questions to Python: a promise of the answer's fields and buffers.
  ask(what, fields = {}) {
    const id = ++this.number;
    return new Promise((done, fail) => {
      const late = setTimeout(() => { this.asked.delete(id); fail(new Error("the kernel does not answer; run the cell again")); }, 20000);
      this.asked.set(id, (message, buffers) => { clearTimeout(late); message.error ? fail(new Error(message.error)) : done([message, buffers]); });
      this.model.send({ ask: what, id, ...fields });
    });
  }
  answer(message, buffers) { const done = this.asked.get(message.id); this.asked.delete(message.id); if (done) done(message, buffers); }
  say(text) { this.live.textContent = text; }
  failed = (error) => { this.note.textContent = error.message; this.say(error.message); };

  build() {
    const choice = (label, options, pick) => {
      const select = make("select", { onchange: () => pick(select.value) });
      select.options_ = (names, now) => { select.replaceChildren(...names.map((n) => make("option", { value: n, selected: n === now }, words(n)))); };
      select.options_(options, options[0]);
      return [select, make("label", {}, label + " ", select)];
    };
    const slider = (label, low, high, step, pick) => {
      const out = make("output"), input = make("input", { type: "range", min: low, max: high, step, oninput: () => { out.textContent = input.value; }, onchange: () => pick(+input.value) });
      return [input, make("label", {}, label + " ", input, " ", out), out];
    };
    let box;
    const bar = make("div", { class: "cx-bar" });
    [this.method, box] = choice("map", ["umap", "pca", "tsne"], (v) => this.set("method", v)); bar.append(box);
    [this.neighbours, box, this.neighboursOut] = slider("neighbours", 2, 100, 1, (v) => this.set("neighbours", v)); bar.append(box);
    [this.minDist, box, this.minDistOut] = slider("min. distance", 0, 1, 0.05, (v) => this.set("min_dist", v)); bar.append(box);
    [this.colour, box] = choice("colour", ["scene"], (v) => this.set("colour", v)); bar.append(box);
    this.search = make("input", { type: "search", placeholder: "search clips", "aria-label": "search clips", oninput: () => this.find(), onkeydown: (e) => { if (e.key === "Enter") this.choose(this.found, e.shiftKey); } });
    this.filter = make("input", { type: "search", placeholder: "filter: city == 'lyon'", "aria-label": "filter by the table, in pandas' query language", onchange: () => this.keep(), onkeydown: (e) => { if (e.key === "Enter") this.keep(); } });
    bar.append(this.search, this.filter);
    const tools = make("div", { class: "cx-bar" }), group = make("span", { class: "cx-tools", role: "group", "aria-label": "tool" });
    this.tools = {};
    for (const [name, hint] of [["move", "drag moves the map"], ["lasso", "drag around points; Shift adds"], ["box", "drag a box around points; Shift adds"], ["shots", "click points to teach the classifier"]]) {
      this.tools[name] = make("button", { type: "button", title: hint, "aria-pressed": String(name === this.tool), onclick: () => this.take(name) }, name); group.append(this.tools[name]);
    }
    const button = (text, title, onclick) => make("button", { type: "button", title, onclick }, text);
    this.counter = make("span", { class: "cx-note" });
    this.meansButton = make("button", { type: "button", title: "mark the clip nearest to each class's mean", "aria-pressed": "false", onclick: () => { this.means = !this.means; this.meansButton.setAttribute("aria-pressed", this.means); this.overlays(); } }, "class means");
    tools.append(group, this.meansButton, button("fit", "show all points again (f)", () => this.views.forEach((v) => v.fit())), button("clear", "no selection, no clip, no search (Esc)", () => this.clear()),
      button("table", "save the selected clips as CSV", () => this.saveTable()), button("SVG", "save the maps as a drawing", () => this.saveDrawing()), button("PNG", "save the maps as a picture", () => this.savePicture()), this.counter);
    this.note = make("div", { class: "cx-note", role: "status" });
    this.grid = make("div", { class: "cx-views" });
    this.legend = make("div", { class: "cx-legend", role: "group", "aria-label": "legend" }); this.legendTitle = make("h4");
    this.clip = make("div", { class: "cx-clip" }, make("p", { class: "cx-note" }, "Click a point to hear it. On a focused map: → ← walk its nearest neighbours, ↓ goes there, ↑ comes back, space plays."));
    this.live = make("div", { class: "cx-hidden", "aria-live": "polite" });
    this.tabs = make("div", { class: "cx-tools", role: "tablist" }); this.body = make("div"); this.tab = "quality";
    const side = make("div", { class: "cx-side" }, make("div", {}, this.legendTitle, this.legend), this.clip);
    this.root.append(bar, tools, this.note, make("div", { class: "cx-main" }, this.grid, side, make("div", { class: "cx-panel" }, this.tabs, this.body)), this.live);
  }

  // The colours of the page; true where they are not what they were.
  theme() {
    const css = getComputedStyle(this.root), old = this.fore + this.back, channel = (css.backgroundColor.match(/[\d.]+/g) || [255, 255, 255]).map(Number);
    this.fore = css.color; this.back = css.backgroundColor;
    this.night = channel[0] + channel[1] + channel[2] < 380 && channel[3] !== 0;
    this.grey = this.pack(this.night ? [88, 88, 88] : [212, 212, 212]);
    return this.fore + this.back !== old;
  }
  pack([r, g, b]) { return ((b << 16) | (g << 8) | r) >>> 0; }

  // Colour and marker of the i-th name, as in all pictures of the course; the dark grey turns light at night.
  style(i) {
    const colours = this.model.get("colours"), markers = this.model.get("markers"), colour = colours[i % colours.length];
    return [this.night && colour === "#4D4D4D" ? "#C4C4C4" : colour, markers[(i + Math.floor(i / 24)) % markers.length]];
  }

  readColumns() {
    this.columns = {};
    for (const [name, column] of Object.entries(this.model.get("columns")))
      this.columns[name] = column.names ? { names: column.names, codes: new Uint32Array(bytes(column.codes)) } : { numbers: new Float32Array(bytes(column.numbers)) };
    this.colour.options_(Object.keys(this.columns), this.model.get("colour"));
    this.describing = Object.keys(this.columns).filter((n) => this.columns[n].names && !/^(guess|right)/.test(n));
    this.find(); this.panel();
  }

  readMaps() {
    const maps = this.model.get("titles").map((_, i) => this.model.get(`map${i}`));
    while (this.views.length > maps.length) { const v = this.views.pop(); v.stop(); v.node.remove(); }
    while (this.views.length < maps.length) { const v = new View(this, this.views.length); this.views.push(v); this.grid.append(v.node); }
    this.drawn ??= [];
    maps.forEach((map, i) => { if (this.drawn[i] !== map.stamp) { this.drawn[i] = map.stamp; this.views[i].set(map); } });
    if (this.lit.length !== this.count) this.paint();
    this.neighboursOf(); setTimeout(() => this.hideTwin(), 300);
  }
  get count() { return this.views.length ? this.views[0].n : 0; }

  // Not while an own choice is on its way: what arrives then is older.
  readSelected() { if (this.choosing) return; this.chosen = new Set(new Uint32Array(bytes(this.model.get("selected")))); this.paint(); }

  settings() {
    for (const [node, out, name] of [[this.neighbours, this.neighboursOut, "neighbours"], [this.minDist, this.minDistOut, "min_dist"]]) { node.value = this.model.get(name); out.textContent = node.value; }
    this.method.value = this.model.get("method");
    this.minDist.disabled = this.method.value !== "umap"; this.neighbours.disabled = this.method.value === "pca";
  }

  progress() {
    const busy = this.model.get("busy");
    this.views.forEach((v, i) => { const share = busy[i]; v.bar.hidden = share === undefined || share === null; if (share > 0) v.bar.value = share; else v.bar.removeAttribute("value"); });
  }

  recolour() { this.colour.value = this.model.get("colour"); this.off.clear(); this.paint(); }

  // Ink, marker and whether lit, for every point; then the legend.
  paint() {
    if (!this.columns || !this.views.length) return;
    const n = this.count, column = this.columns[this.model.get("colour")] || Object.values(this.columns)[0];
    const kept = new Uint8Array(bytes(this.model.get("kept"))), chosen = this.chosen || new Set();
    this.radius = n > 6000 ? 2.4 : n > 1500 ? 3 : 3.8;
    this.lit = new Uint8Array(n).fill(1); this.shape = new Array(n).fill("o"); this.ink = new Uint32Array(n);
    const styles = (column.names || []).map((_, c) => this.style(c)).map(([colour, shape]) => [this.pack(rgb(colour)), shape]);
    this.span = column.numbers ? this.extent(column.numbers) : null;
    for (let i = 0; i < n; i++) {
      if (column.names) [this.ink[i], this.shape[i]] = styles[column.codes[i]] || [this.grey, "o"];
      else { const v = column.numbers[i]; this.ink[i] = Number.isFinite(v) ? this.pack(ramp((v - this.span[0]) / (this.span[1] - this.span[0] || 1))) : this.grey; }
      if ((kept.length && !kept[i]) || (chosen.size && !chosen.has(i)) || (column.names && this.off.has(column.codes[i]))) this.lit[i] = 0;
    }
    this.drawLegend(column); this.counter.textContent = chosen.size ? `${chosen.size} of ${n} selected` : `${n} clips`;
    this.redraw();
  }

  extent(numbers) {
    const sorted = Float32Array.from(numbers.filter(Number.isFinite)).sort();
    return sorted.length ? [sorted[Math.floor(0.01 * (sorted.length - 1))], sorted[Math.ceil(0.99 * (sorted.length - 1))]] : [0, 1];
  }

  drawLegend(column) {
    this.legendTitle.textContent = words(this.model.get("colour"));
    if (column.numbers) {
      const stops = CIVIDIS.map((c, i) => `rgb(${c}) ${100 * i / (CIVIDIS.length - 1)}%`).join(",");
      this.legend.replaceChildren(make("div", { style: "width:100%" }, make("div", { class: "cx-ramp", style: `background:linear-gradient(90deg,${stops})` }), make("div", { class: "cx-ends" }, make("span", {}, short(this.span[0])), make("span", {}, short(this.span[1])))));
      return;
    }
    const count = new Uint32Array(column.names.length);
    for (const c of column.codes) count[c]++;
    const shown = column.names.map((_, c) => c).filter((c) => count[c]).slice(0, 60);
    this.legend.replaceChildren(...shown.map((c) => {
      const [colour, shape] = this.style(c), mark = make("canvas", { width: 28, height: 28, style: "width:14px;height:14px", "aria-hidden": "true" }), ctx = mark.getContext("2d");
      ctx.translate(14, 14); trace(ctx, shape, 9); ctx.fillStyle = colour; ctx.fill();
      return make("button", { type: "button", "aria-pressed": String(!this.off.has(c)), title: "click: on or off; double click: only this one",
        onclick: () => { this.off.has(c) ? this.off.delete(c) : this.off.add(c); this.paint(); },
        ondblclick: () => { this.off = new Set(column.names.map((_, d) => d).filter((d) => d !== c)); this.paint(); } }, mark, `${words(column.names[c])} ${count[c]}`);
    }), ...(column.names.length > shown.length && shown.length === 60 ? [make("span", { class: "cx-note" }, `and ${column.names.length - 60} more`)] : []));
  }

  redraw() {
    if (this.pending) return;
    this.pending = requestAnimationFrame((now) => {
      this.pending = null;
      const start = performance.now(), moving = this.views.map((v) => v.draw(now)).some(Boolean);
      this.times.push(performance.now() - start); if (this.times.length > 600) this.times.shift();
      if (moving) this.redraw();
    });
  }
  overlays() { this.views.forEach((v) => { if (v.n && v.w) v.drawOver(); }); }

  value(name, i) { const c = this.columns[name]; return c.names ? words(c.names[c.codes[i]]) : short(c.numbers[i]); }
  describe(i, glue = ", ") {
    const told = this.describing.slice(0, 8), colour = this.model.get("colour");
    return [...told, ...(told.includes(colour) ? [] : [colour])].map((n) => `${words(n)}: ${this.value(n, i)}`).join(glue);
  }

  // One clip.
  open(i, sound) {
    this.steps = []; this.walked = -1; this.step = 0;
    if (i !== this.clicked) this.set("clicked", i);
    this.opened(sound);
  }

  opened(sound = false) {
    const i = this.clicked;
    this.overlays(); this.neighboursOf();
    if (i < 0 || i >= this.count) return;
    this.show(i, sound);
  }

  // A clip's sound and picture: asked for once, and again only where that failed.
  fetch(i) {
    if (!this.clips.has(i)) {
      const coming = this.ask("clip", { clip: i }).then(clipOf);
      coming.catch(() => this.clips.delete(i));
      this.clips.set(i, coming);
      if (this.clips.size > 400) this.clips.delete(this.clips.keys().next().value);
    }
    return this.clips.get(i);
  }

  async show(i, sound) {
    this.say(`clip ${i}. ${this.describe(i)}`);
    const asked = performance.now();
    this.wanted = i;
    if (sound) this.wake();
    let clip = null;
    try { clip = await this.fetch(i); } catch (error) { this.failed(error); }
    if (this.wanted !== i) return;
    const about = make("dl");
    for (const [key, value] of Object.entries(clip?.about || { clip: i })) about.append(make("dt", {}, words(key)), make("dd", {}, words(value)));
    const picture = make("canvas", { role: "img", "aria-label": clip ? `log-mel spectrogram, ${clip.seconds} s` : "no spectrogram" });
    this.near = make("div", { class: "cx-near" });
    this.clip.replaceChildren(...(clip ? [picture, make("button", { type: "button", onclick: () => this.play(i) }, "▶ play (space)")] : []), about, this.near);
    if (clip) spectrogram(picture, clip, this.fore);
    this.neighboursOf();
    if (sound && clip) { this.play(i); this.heard = performance.now() - asked; }
  }

  wake() {
    this.audio ??= new AudioContext();
    if (!this.meter) { this.meter = this.audio.createAnalyser(); this.meter.fftSize = 4096; this.meter.connect(this.audio.destination); }
    this.audio.resume();
  }

  async play(i) {
    if (i < 0) return;
    this.wake();
    let clip;
    try { clip = await this.fetch(i); } catch (error) { return this.failed(error); }
    if (!clip.sound.length) return;
    this.source?.stop(); this.source = begin(clip, this.meter);
  }
  get peak() { if (!this.meter) return 0; const d = new Float32Array(this.meter.fftSize); this.meter.getFloatTimeDomainData(d); return Math.max(...d.map(Math.abs)); }

  // Buttons for the neighbours of the clicked clip in the first view that knows them.
  neighboursOf() {
    if (!this.near) return;
    const i = this.clicked, view = this.views[this.last || 0] || this.views[0];
    if (i < 0 || !view?.k || i >= view.n) return this.near.replaceChildren();
    const at = [...view.near.slice(i * view.k, (i + 1) * view.k)], label = this.columns[this.label];
    this.near.replaceChildren(make("h4", { style: "width:100%" }, `nearest in ${view.title.textContent}`), ...at.map((j, rank) => make("button", { type: "button", title: this.describe(j) + (view.torn[i * view.k + rank] ? "; torn away on the map" : ""),
      onclick: () => { this.walked = j; this.play(j); this.say(this.describe(j)); this.overlays(); } }, `${label ? words(label.names[label.codes[j]]) : j}${view.torn[i * view.k + rank] ? " ⚡" : ""}`)));
  }

  // Keyboard: → ← go through the neighbours of the clip, ↓ makes the neighbour the clip, ↑ returns.
  walk(view, by) {
    this.last = view.index;
    if (this.clicked < 0) { this.open(view.hit(view.w / 2, view.h / 2, 1e4), true); return; }
    if (!view.k) return;
    this.step = clamp((this.walked < 0 ? (by > 0 ? -1 : 0) : this.step) + by, 0, view.k - 1);
    this.walked = view.near[this.clicked * view.k + this.step];
    this.say(`neighbour ${this.step + 1} of ${view.k}: ${this.describe(this.walked)}${view.torn[this.clicked * view.k + this.step] ? ", torn away on this map" : ""}`);
    this.overlays();
  }
  settle() { if (this.walked < 0) return; const trail = [...this.steps, this.clicked]; this.open(this.walked, true); this.steps = trail; }
  back_up() { if (!this.steps.length) return; const trail = [...this.steps], to = trail.pop(); this.open(to, true); this.steps = trail; }

  // Selection.
  take(name) { this.tool = name; for (const [n, b] of Object.entries(this.tools)) b.setAttribute("aria-pressed", n === name); if (name === "shots") { this.tab = "shots"; this.panel(); } }
  choose(ids, add = false) {
    this.chosen = new Set(add ? [...this.chosen, ...ids] : ids);
    this.choosing = (this.choosing || 0) + 1;
    const told = this.ask("select", { clips: [...this.chosen].sort((a, b) => a - b) }).catch(this.failed).finally(() => { this.choosing -= 1; });
    this.say(`${this.chosen.size} clips selected`); this.paint();
    return told;
  }
  toggle(i) { if (i < 0) return; const next = new Set(this.chosen); next.has(i) ? next.delete(i) : next.add(i); this.choose(next); }
  clear() {
    this.search.value = ""; this.found = []; this.walked = -1; this.steps = []; this.off.clear();
    if (this.filter.value) { this.filter.value = ""; this.keep(); }
    this.set("clicked", -1); this.near = null; this.choose([]);
  }
  find() {
    const text = this.search.value.trim().toLowerCase();
    this.found = [];
    if (text) for (let i = 0; i < this.count; i++) if (this.describing.some((n) => words(this.columns[n].names[this.columns[n].codes[i]]).toLowerCase().includes(text))) this.found.push(i);
    if (text) this.say(`${this.found.length} clips found; Enter selects them`);
    this.overlays();
  }
  keep() { this.ask("filter", { query: this.filter.value }).then(([message]) => { this.note.textContent = message.note; }).catch(this.failed); }

  // Panels below the maps.
  panel() {
    const tabs = { quality: "Quality", errors: "Errors", ...(this.model.get("alone") ? {} : { shots: "Shots" }) };
    this.tabs.replaceChildren(...Object.entries(tabs).map(([key, text]) => make("button", { type: "button", role: "tab", "aria-selected": String(key === this.tab), onclick: () => { this.tab = key; this.panel(); } }, text)));
    this.body.replaceChildren(...this[this.tab + "Panel"]());
  }

  qualityPanel() {
    const rows = this.model.get("quality"), titles = this.model.get("titles");
    if (!rows.length) return [make("p", { class: "cx-note" }, "measured as soon as the maps are made")];
    return [make("table", {}, make("thead", {}, make("tr", {}, make("th", {}, ""), ...titles.map((t) => make("th", {}, t)))), make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell, i) => make(i ? "td" : "th", {}, i ? (Number.isFinite(cell) ? cell.toFixed(3) : "none") : cell))))))];
  }

  errorsPanel() {
    const guesses = Object.keys(this.columns).filter((n) => n.startsWith("guess")), label = this.columns[this.label];
    if (!guesses.length || !label) return [make("p", { class: "cx-note" }, "no guesses yet: teach a classifier under Shots")];
    if (!guesses.includes(this.judged)) this.judged = guesses[guesses.length - 1];
    const guess = this.columns[this.judged], names = label.names, cells = names.map(() => new Array(names.length).fill(0).map(() => []));
    const code = guess.names.map((n) => names.indexOf(n));
    for (let i = 0; i < this.count; i++) { const g = code[guess.codes[i]]; if (g >= 0) cells[label.codes[i]][g].push(i); }
    const select = make("select", { onchange: () => { this.judged = select.value; this.panel(); } }, ...guesses.map((g) => make("option", { value: g, selected: g === this.judged }, g)));
    const table = make("table", { class: "cx-grid" }, make("thead", {}, make("tr", {}, make("th", {}, "scene \\ guess"), ...names.map((n) => make("th", { class: "cx-down" }, words(n))))),
      make("tbody", {}, ...names.map((n, r) => {
        const total = cells[r].reduce((s, c) => s + c.length, 0) || 1;
        return make("tr", {}, make("th", {}, words(n)), ...cells[r].map((ids, c) => {
          const share = ids.length / total, [red, green, blue] = ramp(share);
          return make("td", {}, make("button", { type: "button", disabled: !ids.length, "aria-label": `${words(n)} heard as ${words(names[c])}: ${ids.length} clips`, style: `background:rgb(${red},${green},${blue});color:${share > 0.6 ? "#000" : "#fff"}`, onclick: () => this.choose(ids) }, String(ids.length || "")));
        }));
      })));
    return [make("div", { class: "cx-bar" }, make("label", {}, "who guesses ", select), this.facets(guess, code, label)), table];
  }

  facets(guess, code, label) {
    const columns = this.describing.filter((n) => n !== this.label && this.columns[n].names.length < 16);
    if (!columns.length) return "";
    if (!columns.includes(this.facet)) this.facet = columns[0];
    const column = this.columns[this.facet], right = new Array(column.names.length).fill(0), all = new Array(column.names.length).fill(0);
    for (let i = 0; i < this.count; i++) { const g = code[guess.codes[i]]; if (g >= 0) { all[column.codes[i]]++; right[column.codes[i]] += g === label.codes[i]; } }
    const select = make("select", { onchange: () => { this.facet = select.value; this.panel(); } }, ...columns.map((n) => make("option", { value: n, selected: n === this.facet }, words(n))));
    return make("span", {}, make("label", {}, "right by ", select), " ", column.names.map((n, c) => all[c] && `${words(n)} ${Math.round(100 * right[c] / all[c])} %`).filter(Boolean).join(", "));
  }

  shotsPanel() {
    const label = this.columns[this.label], counts = new Map();
    for (const i of this.shots.keys()) counts.set(label.codes[i], (counts.get(label.codes[i]) || 0) + 1);
    const results = this.model.get("guesses");
    const k = make("input", { type: "number", min: "1", max: "50", value: "5", style: "width:52px", "aria-label": "shots a class" });
    return [make("p", { class: "cx-note" }, "With the tool “shots” each clicked point becomes a labelled example (key k). Every space then fits the few-shot classifier of chapter 13 on them and guesses all others."),
      make("div", { class: "cx-bar" }, make("label", {}, k, " a class "), make("button", { type: "button", onclick: () => this.draw(+k.value) }, "draw at random"), make("button", { type: "button", disabled: !this.shots.size, onclick: () => { this.shots.clear(); this.teach(); } }, "forget all"),
        ...[...counts].map(([c, n]) => make("span", {}, `${words(label.names[c])} ${"●".repeat(Math.min(n, 10))}`))),
      make("div", {}, ...results.map(([title, share, n]) => make("p", {}, `${title}: ${(100 * share).toFixed(1)} % of ${n} others right`)))];
  }
  toggleShot(i) { if (i < 0) return; this.shots.has(i) ? this.shots.delete(i) : this.shots.set(i, true); this.teach(); }
  draw(k) { this.ask("draw", { k }).then(([message]) => { this.shots = new Map(message.shots.map((i) => [i, true])); this.teach(); }).catch(this.failed); }
  teach() { this.overlays(); this.panel(); this.ask("teach", { shots: [...this.shots.keys()] }).then(([message]) => { this.say(message.note); this.panel(); }).catch(this.failed); }

  // Things to take away.
  save(name, blob) { const a = make("a", { href: URL.createObjectURL(blob), download: name }); document.body.append(a); a.click(); a.remove(); this.saved = [name, blob.size]; setTimeout(() => URL.revokeObjectURL(a.href), 10000); }
  saveTable() {
    const ids = this.chosen.size ? [...this.chosen].sort((a, b) => a - b) : [...Array(this.count).keys()], names = Object.keys(this.columns), quote = (v) => /[",\n]/.test(v) ? `"${v.replaceAll('"', '""')}"` : v;
    const rows = ids.map((i) => [i, ...names.map((n) => { const c = this.columns[n]; return quote(String(c.names ? c.names[c.codes[i]] : c.numbers[i])); })].join(","));
    this.save("selection.csv", new Blob([["clip", ...names.map(quote)].join(",") + "\n" + rows.join("\n") + "\n"], { type: "text/csv" }));
  }
  saveDrawing() {
    const parts = [], gap = 12;
    let x = 0;
    for (const v of this.views) {
      parts.push(`<g transform="translate(${x} 0)"><text x="4" y="14">${v.title.textContent.replace(/[<&]/g, "")}</text><svg y="20" width="${v.w}" height="${v.h}"><rect width="100%" height="100%" fill="none" stroke="#999"/>`);
      for (let pass = 0; pass < 2; pass++) for (let i = 0; i < v.n; i++) if (this.lit[i] === pass) { const [px, py] = v.screen(i), ink = pass ? this.ink[i] : this.grey; parts.push(this.mark(pass ? this.shape[i] : "o", px, py, `rgb(${ink & 255},${(ink >> 8) & 255},${(ink >> 16) & 255})`)); }
      parts.push("</svg></g>"); x += v.w + gap;
    }
    this.save("maps.svg", new Blob([`<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12" width="${x}" height="${20 + Math.max(...this.views.map((v) => v.h))}">${parts.join("")}</svg>`], { type: "image/svg+xml" }));
  }
  mark(shape, x, y, fill) {
    if (shape === "o") return `<circle cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="${this.radius}" fill="${fill}"/>`;
    const corners = [];
    trace({ beginPath() {}, closePath() {}, lineTo: (a, b) => corners.push([a, b]), rect: (a, b, w, h) => corners.push([a, b], [a + w, b], [a + w, b + h], [a, b + h]) }, shape, this.radius);
    return `<polygon points="${corners.map(([a, b]) => `${(x + a).toFixed(1)},${(y + b).toFixed(1)}`).join(" ")}" fill="${fill}"/>`;
  }
  savePicture() {
    const w = this.views.reduce((s, v) => s + v.points.width + 12, 0), h = Math.max(...this.views.map((v) => v.points.height)), canvas = make("canvas", { width: w, height: h + 26 }), ctx = canvas.getContext("2d");
    ctx.fillStyle = this.back === "rgba(0, 0, 0, 0)" ? "#fff" : this.back; ctx.fillRect(0, 0, w, h + 26); ctx.fillStyle = this.fore; ctx.font = "16px system-ui, sans-serif";
    let x = 0;
    for (const v of this.views) { ctx.fillText(v.title.textContent, x + 4, 18); ctx.drawImage(v.points, x, 26); ctx.drawImage(v.over, x, 26); x += v.points.width + 12; }
    canvas.toBlob((blob) => this.save("maps.png", blob));
  }

  close() {
    this.model.off(null, null, this); clearInterval(this.watch); this.views.forEach((v) => v.stop());
    cancelAnimationFrame(this.pending); this.source?.stop(); this.audio?.close();
  }
}

function render({ model, el }) { const explorer = new Explorer(model, el); return () => explorer.close(); }
export default { render };
