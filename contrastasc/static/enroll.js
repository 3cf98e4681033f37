// Live enrolment's front end: the microphone, what it hears, and the clips that were named. Python listens, learns and keeps.

const CHUNK = 0.25, WINDOW = 8, SILENT = -70, STARTING = 2;  // seconds in a chunk; chunks on their way at most; dB; seconds until silence counts

const CSS = BASE + `
.ce-two { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 8px; } .ce-two canvas, .ce-time { width: 100%; display: block; border: 1px solid var(--line); border-radius: 4px; box-sizing: border-box; }
.ce-two canvas { height: 96px; } .ce-time { height: 62px; }
.ce-state { font-weight: 600; } .ce-warn { border-left: 4px solid #D55E00; padding-left: 6px; } .ce-warn:empty, .ce-state:empty { display: none; }
.ce-said { margin: 6px 0 2px; min-height: 31px; overflow-wrap: anywhere; } .ce-word { font-size: 22px; } .ce-said small { font-size: 13px; opacity: .8; }
.ce-forced { opacity: .8; font-size: 12px; } .ce-forced:empty, .ce-map:empty { display: none; } .cx .ce-bars.ce-grey .ce-fill { background: #888 !important; opacity: .55; }
.ce-bars { display: grid; grid-template-columns: fit-content(35%) 1fr 3.5em; gap: 3px 8px; align-items: center; margin-bottom: 6px; }
.ce-bars .ce-track { background: var(--soft); height: 16px; border-radius: 3px; overflow: hidden; } .ce-bars .ce-fill { height: 100%; transition: width .15s; }
.ce-bars span:nth-child(3n + 1) { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; } .ce-bars span:nth-child(3n) { text-align: right; font-variant-numeric: tabular-nums; }
.cx .ce-name { width: 150px; } .ce-part { border-top: 1px solid var(--line); padding-top: 6px; margin-top: 6px; } .ce-part h4 { margin: 0 0 4px; font-size: 13px; }
.ce-take { display: grid; grid-template-columns: minmax(0, 320px) minmax(0, 1fr); gap: 10px; margin-bottom: 6px; } .ce-take canvas { width: 100%; height: 150px; display: block; }
.ce-list { max-height: 230px; overflow-y: auto; } .cx .ce-list td, .cx .ce-list th { text-align: left; } .ce-list td { overflow-wrap: anywhere; } .ce-list td:nth-child(n + 4) { white-space: nowrap; }
.ce-take > div { min-width: 0; overflow-wrap: anywhere; } .ce-warn, .ce-state, .ce ul, .ce-part h4 { overflow-wrap: anywhere; }
.ce-drop { outline: 3px dashed #0072B2; outline-offset: -3px; }
.ce ul { margin: 2px 0; padding-left: 18px; }
@media (prefers-reduced-motion: reduce) { .ce-bars .ce-fill { transition: none; } }
@container (max-width: 640px) {
  .ce-two, .ce-take { grid-template-columns: minmax(0, 1fr); }
  .cx .ce-list thead { display: none; } .ce-list table, .ce-list tbody { display: block; }
  .ce-list tr { display: flex; flex-wrap: wrap; align-items: baseline; padding: 3px 0; border-bottom: 1px solid var(--line); }
  .cx .ce-list td { padding: 1px 4px; opacity: .85; } .cx .ce-list td:nth-child(1) { flex: 1 1 calc(100% - 100px); opacity: 1; } .cx .ce-list td:nth-child(1) input { width: 100%; box-sizing: border-box; }
  .cx .ce-list td:nth-child(6) { order: 1; opacity: 1; } .cx .ce-list td:nth-child(n + 2):nth-child(-n + 5) { order: 2; } .ce-list td:empty { display: none; }
}
`;

const INSECURE = "This page came over plain http, and browsers give such pages no microphone. Ask for the https address of this server, or forward its port to localhost. Files work as they are.";
const ABSENT = "This program gives notebooks no microphone (VS Code does not). Open the notebook in JupyterLab in a browser, or choose a file below.";
const STOPPED = "Stopped: nothing was measured.";
const LOST = "Python has not answered for some seconds. If it is busy with a cell, wait: what it cannot take is dropped and counted. If the kernel was restarted, run this cell again.";
const GONE = "The kernel that this belonged to is gone. Run this cell again; what was enrolled is still in its file.";

// A time as the reader's clock tells it.
const when = (time) => new Date(time).toLocaleString(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

class Enroller {
  constructor(model, el) {
    this.model = model; this.waiting = new Map(); this.number = 0; this.state = "off"; this.timeline = []; this.delays = []; this.lags = [];
    this.peak = 0; this.dropped = 0; this.pending = []; this.mels = []; this.turn = 0; this.skew = 0; this.uploads = []; this.rows = new Map(); this.classes = []; this.typed = {};
    this.build();
    el.append(make("style", {}, CSS), this.root);
    model.on("msg:custom", (message, buffers) => this.heard(message, buffers), this);
    this.theme(); this.watch = setInterval(() => { if (this.theme() || this.root.clientWidth !== this.width) { this.width = this.root.clientWidth; this.drawMel(); this.drawTake(); if (!this.on) this.drawWave(); } this.drawTime(); this.mind(); }, 500);
    this.ask("hello").then(([message]) => this.set(message)).catch((error) => this.tell(error));
    this.drawTime(); this.drawMel(); this.drawWave();
  }

  // What has changed of the page's colours since the last look.
  theme() { const css = getComputedStyle(this.root), old = this.fore; this.fore = css.color; return this.fore !== old; }

  // Questions to Python, and what it says by itself.
  ask(ask, facts = {}, buffers = []) {
    const id = ++this.number + Math.random();
    return new Promise((done, fail) => {
      this.waiting.set(id, { done, fail });
      try { this.model.send({ ask, id, ...facts }, undefined, buffers); } catch (error) { this.waiting.delete(id); this.gone(); fail(error); }
    });
  }
  heard(message, buffers) {
    if (message.changed) return this.set(message);
    if (message.hints && !message.id) return this.advise(message.hints);
    if (message.trouble) return this.tell(message.trouble);
    const asked = this.waiting.get(message.id);
    if (!asked) return;
    this.waiting.delete(message.id);
    message.error ? asked.fail(new Error(message.error)) : asked.done([message, buffers]);
  }
  gone() { this.lost_for_good = true; this.stop(); this.set_state("gone", GONE); }  // the kernel, or this widget's place in it
  tell(error) { if (this.state !== "gone") this.trouble.textContent = error?.message || String(error); }

  build() {
    const button = (text, act, more = {}) => make("button", { type: "button", onclick: act, ...more }, text);
    this.root = make("div", { class: "cx ce", role: "group", "aria-label": "live enrolment" });
    this.switch = button("Listen", () => this.on ? this.stop() : this.start().catch((e) => this.failed(e)));
    this.line = make("span", { class: "ce-state", role: "status" }); this.about = make("span", { class: "cx-note" });
    this.warning = make("div", { class: "ce-warn", role: "alert" }); this.trouble = make("div", { class: "ce-warn", role: "alert" });
    this.meter = make("meter", { min: -70, max: 0, low: -60, high: -3, optimum: -20, value: -70, "aria-label": "level in dB below full scale" }); this.loud = make("span", { class: "cx-note" });
    this.wave = make("canvas", { role: "img", "aria-label": "waveform of the last moment" }); this.mel = make("canvas", { role: "img", "aria-label": "log-mel spectrogram of the last ten seconds" });
    this.word = make("span", { class: "ce-word", "aria-live": "polite" }); this.detail = make("small"); this.forced = make("div", { class: "ce-forced" }); this.bars = make("div", { class: "ce-bars" });
    this.time = make("canvas", { class: "ce-time", role: "img" });
    this.names = make("datalist", { id: `ce-${Math.random().toString(36).slice(2)}` });
    const enter = (e) => { if (e.key === "Enter" && this.taken) this.enrol(); };
    this.name = make("input", { class: "ce-name", list: this.names.id, placeholder: "scene, e.g. kitchen", "aria-label": "name of the scene", onkeydown: enter, onfocus: () => this.name.select(), oninput: () => { this.typed.name = Boolean(this.name.value); } });
    this.place = make("input", { class: "ce-name", placeholder: "where (optional)", "aria-label": "place of the recording", onkeydown: enter, oninput: () => { this.typed.place = true; } });
    this.length = make("select", { "aria-label": "seconds to record" }, ...[3, 5, 10, 20].map((s) => make("option", { value: s, selected: s === 5 }, `${s} s`)));
    this.record = button("● Record", () => this.begin(), { disabled: true }); this.keep = button("Keep the last seconds", () => this.take(this.heardTo - +this.length.value, this.heardTo), { disabled: true });
    this.file = make("input", { type: "file", accept: "audio/*", hidden: true, multiple: true, onchange: () => { this.upload(...this.file.files); this.file.value = ""; } });
    this.progress = make("progress", { max: 1, value: 0, hidden: true, "aria-label": "recording" });
    this.shelf = make("select", { "aria-label": "class of the set" }); this.shelfNumber = make("input", { type: "number", min: 1, value: 1, style: "width: 60px", "aria-label": "clip of that class" });
    this.fromSet = make("span", { hidden: true }, "or from the set: ", this.shelf, " clip ", this.shelfNumber, " ", button("Take", () => this.ask("pick", { scene: this.shelf.value, nth: +this.shelfNumber.value - 1 }).then((a) => this.showTake(a)).catch((e) => this.tell(e))));
    this.taken = null; this.takeBox = make("div", { class: "ce-take", hidden: true }); this.queue = make("div", { class: "cx-note", role: "status" });
    this.list = make("div", { class: "ce-list" }); this.undo = button("Undo", () => this.turnBack("undo"), { disabled: true }); this.redo = button("Redo", () => this.turnBack("redo"), { hidden: true }); this.map = make("div", { class: "cx-note ce-map" }); this.hints = make("ul", { "aria-label": "hints" }); this.stale = make("div", { class: "ce-warn" });
    this.method = make("select", { onchange: () => this.change("settings", { method: this.method.value }) }, make("option", { value: "logistic" }, "logistic regression"), make("option", { value: "mean" }, "nearest mean"));
    const slide = (name, low, high, label) => this[name] = make("input", { type: "range", min: low, max: high, step: 0.05, "aria-label": label, onchange: (e) => this.change("settings", { [name]: +e.target.value }) });
    this.probe = button("What does the browser do to sound?", () => this.compare().catch((e) => this.failed(e))); this.bands = make("div");
    this.root.append(
      make("div", { class: "cx-bar" }, this.switch, this.line, this.meter, this.loud, this.about), this.warning, this.trouble,
      make("div", { class: "ce-two" }, this.wave, this.mel), make("div", { class: "ce-said" }, this.word, " ", this.detail), this.forced, this.bars, this.time,
      make("div", { class: "cx-bar" }, make("label", {}, "classifier ", this.method), make("label", {}, "sure from ", slide("sure", 0.2, 0.95, "least share for a verdict")), make("label", {}, "unknown beyond ", slide("limit", 0.3, 3, "novelty from which a sound is unknown")), this.probe), this.bands,
      make("div", { class: "ce-part" }, make("h4", {}, "Enrol a scene"),
        make("div", { class: "cx-bar" }, this.name, this.names, this.place, this.length, this.record, this.keep, this.progress, button("Choose a file…", () => this.file.click()), this.file, make("span", { class: "cx-note" }, "or drop some here"), this.fromSet), this.takeBox, this.queue),
      make("div", { class: "ce-part" }, make("h4", {}, "Enrolled clips ", this.undo, " ", this.redo), this.stale, this.list, this.map, this.hints));
    this.root.addEventListener("dragover", (e) => { e.preventDefault(); this.root.classList.add("ce-drop"); });
    this.root.addEventListener("dragleave", () => this.root.classList.remove("ce-drop"));
    this.root.addEventListener("drop", (e) => { e.preventDefault(); this.root.classList.remove("ce-drop"); this.upload(...e.dataTransfer.files); });
  }

  // The microphone.
  get on() { return Boolean(this.context); }
  set_state(state, text = "") { this.state = state; this.line.textContent = text; this.switch.textContent = this.on ? "■ Stop" : "Listen"; this.switch.disabled = state === "asking" || Boolean(this.lost_for_good); this.record.disabled = this.keep.disabled = !this.on; }
  failed(error) {
    this.stop();
    const [state, text] = SAID[error.name] || ["failed", `The microphone did not start: ${error.message || error.name}`];
    this.set_state(state, text); this.ask("state", { state }).catch(() => {});
  }

  async start(processed = false) {
    this.trouble.textContent = "";
    if (!navigator.mediaDevices) { this.set_state(window.isSecureContext ? "absent" : "insecure", window.isSecureContext ? ABSENT : INSECURE); this.ask("state", { state: this.state }).catch(() => {}); return; }
    if (this.state === "asking" || this.lost_for_good) return;
    const turn = ++this.turn;  // what was asked for before, or is stopped meanwhile, is closed when it comes
    this.set_state("asking", "The browser asks whether it may listen.");
    const opened = await openMicrophone(processed, () => turn === this.turn);
    if (!opened) return;
    const { media, context } = opened; this.media = media; this.context = context;
    const [track] = media.getAudioTracks(), source = context.createMediaStreamSource(media), rate = context.sampleRate;
    track.onended = () => { this.stop(); this.set_state("unplugged", "The microphone went away. Plug it in and press the button."); };
    const used = track.getSettings(), active = processing(used);
    this.used = { device: track.label, rate, channels: used.channelCount ?? null, ...Object.fromEntries(Object.keys(FLAGS).map((f) => [f, used[f] ?? null])) };
    this.about.textContent = `${track.label || "microphone"}, ${rate / 1000} kHz, ${active.length ? active.join(" and ") + " on" : "nothing processed"}`;
    this.warning.textContent = active.length && !processed ? `The browser keeps ${active.join(", ")} on although it was asked not to: it removes what scenes are made of.` : "";
    this.tap = new AudioWorkletNode(this.context, "tap", { numberOfOutputs: 0, channelCountMode: "max", processorOptions: { size: Math.round(CHUNK * rate) } });
    this.look = this.context.createAnalyser(); this.look.fftSize = 2048; source.connect(this.look); source.connect(this.tap);
    this.stream = Math.random().toString(36).slice(2); this.heardTo = 0; this.pending = []; this.dropped = 0; this.lost = 0; this.lags = []; this.delays = []; this.quiet = 0; this.mels = []; this.begun = performance.now();
    this.tap.port.onmessage = ({ data }) => this.chunk(data);
    this.set_state("listening", "listening"); this.drawWave();
  }

  stop() {
    this.turn++;
    this.media?.getTracks().forEach((t) => { t.onended = null; t.stop(); }); this.context?.close(); this.tap?.port.close();
    this.media = this.context = this.tap = this.look = this.stream = null; this.recording = null; this.progress.hidden = true; this.meter.value = -70; this.loud.textContent = ""; this.loud.classList.remove("ce-warn");
    this.set_state("off", ""); this.show(null);
  }

  // A chunk goes to Python unless WINDOW of them are on their way: then the newest is dropped, and counted where Python sees the hole.
  chunk({ at, clipped, sound }) {
    if (!this.on) return;
    const rate = this.context.sampleRate, born = performance.now(), end = at + sound.length;
    this.level(sound, clipped);
    if (this.pending.length >= WINDOW) { this.dropped += sound.length / rate; this.busy(); return; }
    const note = { end, born }, stream = this.stream;
    this.pending.push(note);
    this.ask("chunk", { stream: this.stream, rate, at, used: this.used }, [sound.buffer])
      .then(([message, buffers]) => {
        this.pending = this.pending.filter((p) => p !== note); this.lags.push(performance.now() - born); if (this.lags.length > 2400) this.lags.shift();
        if (stream !== this.stream) return;  // it was stopped meanwhile
        this.heardTo = end / rate; this.lost = message.lost; this.busy();
        if (message.verdict) this.second(message, buffers, born);
        if (this.recording) this.recorded();
      }).catch((error) => { this.pending = this.pending.filter((p) => p !== note); if (stream === this.stream && this.on) { this.stop(); this.tell(error); } });
  }
  busy() {
    if (!this.on || this.state === "lost") return;
    const lost = Math.max(this.dropped, this.lost);
    this.set_state("listening", lost ? `listening; ${lost.toFixed(1)} s dropped, since Python was slower than the sound` : "listening");
  }
  mind() {  // Python's silence
    if (!this.on) return;
    const late = this.pending.length ? performance.now() - this.pending[0].born : 0;
    if (late > 5000 && this.state !== "lost") this.set_state("lost", LOST);
    else if (late <= 5000 && this.state === "lost") { this.state = "listening"; this.busy(); }
    if (late > 60000) { this.stop(); this.set_state("gone", LOST); }
  }

  level(sound, clipped) {
    let sum = 0; for (const x of sound) sum += x * x;
    const loud = 10 * Math.log10(sum / sound.length / 2 ** 30 + 1e-12);
    this.meter.value = Math.max(-70, loud); this.quiet = loud < SILENT ? this.quiet + 1 : 0;
    if (clipped) { this.clipped = performance.now(); }
    const words = [clipped ? "too loud: it clips" : `${Math.round(loud)} dB`];
    if (!clipped && performance.now() - (this.clipped ?? -1e9) < 2000) words.push("a moment ago it clipped");
    if (this.quiet > STARTING / CHUNK) words.push("silent: is the microphone muted?");
    this.loud.textContent = words.join(", "); this.loud.classList.toggle("ce-warn", clipped > 0 || words.length > 1);
  }

  // What Python made of the second that just ended.
  second(message, buffers, born) {
    if (buffers.length) { this.mels.push(melPicture(new Uint8Array(bytes(buffers[0])), ...message.shape)); this.mels = this.mels.slice(-10); this.ticks = message.ticks; this.drawMel(); }
    this.clock(message); this.timeline.push(...message.seconds); this.timeline = this.timeline.slice(-600);
    this.show(message.verdict); this.drawTime();
    requestAnimationFrame(() => { this.delays.push(performance.now() - born); if (this.delays.length > 900) this.delays.shift(); });
  }
  clock(message) { if (message.clock) this.skew = message.clock - Date.now() / 1000; }  // Python's clock counts, which may be another machine's
  // Only the word is announced, when it is another one.
  show(verdict) {
    const { word = "", shares = {}, novelty = 0 } = verdict || {}, scenes = Object.keys(shares), top = Math.max(...Object.values(shares), 0), n = this.classes.length;
    const said = words(word) || (scenes.length || !this.on || n > 1 ? "" : n ? "enrol one more scene, and words appear here" : "enrol two scenes, and the first words appear here");
    if (this.word.textContent !== said) this.word.textContent = said;
    this.detail.textContent = !scenes.length ? "" : word === "unknown" ? `nothing like what was enrolled (novelty ${short(novelty)})` : `${Math.round(100 * top)} %`;
    this.forced.textContent = word === "unknown" ? "if it had to be one of yours:" : ""; this.bars.classList.toggle("ce-grey", word === "unknown");
    this.bars.replaceChildren(...scenes.flatMap((n) => [make("span", { title: words(n) }, words(n)), make("div", { class: "ce-track" }, make("div", { class: "ce-fill", style: `width: ${100 * shares[n]}%; background: ${this.colour(n)}` })), make("span", {}, `${Math.round(100 * shares[n])} %`)]));
  }
  colour(scene) { const colours = this.model.get("colours"), i = this.classes?.indexOf(scene) ?? -1; return i < 0 ? "#888" : colours[i % colours.length]; }

  // Pictures.
  canvas(node) {
    const dpr = Math.min(window.devicePixelRatio || 1, 2), w = node.clientWidth || 300, h = node.clientHeight || 60, ctx = node.getContext("2d");
    node.width = w * dpr; node.height = h * dpr; ctx.scale(dpr, dpr); ctx.fillStyle = this.fore; ctx.strokeStyle = this.fore; ctx.font = "11px system-ui, sans-serif";
    return [ctx, w, h];
  }
  drawWave() {
    const [ctx, w, h] = this.canvas(this.wave);
    ctx.fillText("now", 4, 12); ctx.globalAlpha = 0.3; ctx.fillRect(0, h / 2, w, 1); ctx.globalAlpha = 1;
    if (!this.look) return;
    const x = new Float32Array(this.look.fftSize); this.look.getFloatTimeDomainData(x);
    this.peak = Math.max(...x.map(Math.abs)); ctx.strokeStyle = "#0072B2"; ctx.beginPath();
    for (let i = 0; i < w; i++) ctx.lineTo(i, h / 2 - x[Math.floor(i / w * x.length)] * h / 2);
    ctx.stroke(); this.soon(2);  // 20 pictures a second: more cost a laptop its battery and say nothing
  }
  soon(frames) { this.frame = requestAnimationFrame(() => frames ? this.soon(frames - 1) : this.drawWave()); }
  drawMel() {
    const [ctx, w, h] = this.canvas(this.mel), wide = (w - 46) / 10, tall = h - 16;
    this.mels.forEach((second, k) => {
      ctx.drawImage(second, 44 + (10 - this.mels.length + k) * wide, 2, wide + 0.5, tall);
    });
    ctx.textAlign = "right"; ctx.textBaseline = "middle";
    for (const [hz, band] of this.ticks || []) ctx.fillText(hz >= 1000 ? `${hz / 1000} kHz` : `${hz} Hz`, 40, clamp(2 + tall * (1 - band / this.mels[0].height), 6, tall - 4));
    ctx.textAlign = "center"; ctx.fillText("last 10 seconds, as the model sees them", 44 + (w - 46) / 2, h - 7);
  }
  // The last five minutes: a stripe a second, the scene's colour as high as its share.
  drawTime() {
    const [ctx, w, h] = this.canvas(this.time), span = 300, now = Math.max(Date.now() / 1000 + this.skew, this.timeline.at(-1)?.time ?? 0), base = h - 16, wide = w / span;
    ctx.textAlign = "left"; ctx.textBaseline = "middle";
    let last = "", free = 0;
    for (const { time, word, share } of this.timeline) {
      const x = w - (now - time + 1) * wide;
      if (x < -wide) continue;
      const named = this.classes?.includes(word);
      ctx.fillStyle = word === "lost" ? "#D55E00" : named ? this.colour(word) : "#999"; ctx.globalAlpha = named || word === "lost" ? 1 : 0.4;
      const tall = word === "lost" ? 4 : word ? Math.max(4, (base - 16) * share) : 2;
      ctx.fillRect(x, base - tall, Math.max(wide, 1), tall); ctx.globalAlpha = 1; ctx.fillStyle = this.fore;
      if (word === last || !word || x < free) continue;
      const text = words(word).length > 24 ? words(word).slice(0, 23) + "…" : words(word), long = ctx.measureText(text).width;
      if (x + long <= w) { ctx.fillText(text, x, 8); free = x + long + 8; last = word; }
    }
    ctx.fillStyle = this.fore; ctx.fillText("5 minutes ago", 2, h - 7); ctx.textAlign = "right"; ctx.fillText("now", w - 2, h - 7);
    const counts = {}; for (const { word } of this.timeline) counts[word || "nothing enrolled"] = (counts[word || "nothing enrolled"] || 0) + 1;
    this.time.setAttribute("aria-label", "timeline: " + (Object.entries(counts).map(([n, c]) => `${words(n)} ${c} s`).join(", ") || "empty"));
  }

  // Sound in hand: recorded, kept, from a file or from the set; looked at and heard before it is enrolled.
  begin() { this.recording = { start: this.heardTo + this.pending.length * CHUNK, seconds: +this.length.value }; this.progress.hidden = false; this.recorded(); }
  recorded() {
    const { start, seconds } = this.recording;
    this.progress.value = clamp((this.heardTo - start) / seconds, 0, 1);
    if (this.heardTo < start + seconds) return;
    this.recording = null; this.progress.hidden = true; this.take(start, start + seconds);
  }
  take(start, stop) {
    if (start < 0) return this.tell(`Only ${this.heardTo.toFixed(1)} s were heard so far: wait a little.`);
    return this.ask("take", { start, stop }).then((answer) => this.showTake(answer)).catch((e) => this.tell(e));
  }
  // Files wait for each other: one is sent, shown, and enrolled or discarded before the next.
  upload(...files) { this.uploads.push(...files); this.nextFile(); }
  async nextFile() {
    if (this.sending || this.taken || !this.uploads.length) return this.waitingFiles();
    this.sending = true;
    const file = this.uploads.shift(), upload = Math.random().toString(36).slice(2), part = 2 ** 20;
    try {
      const data = await file.arrayBuffer(), parts = Math.max(1, Math.ceil(data.byteLength / part));
      let answer;
      for (let i = 0; i < parts; i++) answer = await this.ask("file", { name: file.name, upload, part: i, parts }, [data.slice(i * part, (i + 1) * part)]);
      this.showTake(answer);
    } catch (error) { this.tell(error); this.refused = this.uploads.length ? error.message : null; }  // stays readable beside the next
    this.sending = false;
    this.nextFile();
  }
  waitingFiles() { this.queue.textContent = this.uploads.length ? `${this.uploads.length} more file${this.uploads.length > 1 ? "s" : ""} after this one` : ""; }
  showTake(answer) {
    const clip = clipOf(answer), picture = make("canvas", { role: "img", "aria-label": `log-mel spectrogram, ${clip.seconds} s` });
    if (this.taken) this.ask("discard", { take: this.taken.take }).catch(() => {});
    this.taken = clip; this.trouble.textContent = this.refused ?? ""; this.refused = null; this.takeBox.hidden = false;
    if (!this.typed.name) this.name.value = clip.name;
    if (!this.typed.place) this.place.value = clip.place;
    this.takeBox.replaceChildren(picture, make("div", {},
      make("div", {}, `${clip.seconds.toFixed(1)} s, ${clip.from}`), make("div", {}, clip.verdict.word ? `sounds like: ${words(clip.verdict.word)}` : ""),
      ...clip.warnings.map((w) => make("div", { class: "ce-warn" }, w)),
      make("div", { class: "cx-bar" }, make("button", { type: "button", onclick: () => this.play(clip) }, "▶ Listen back"), make("button", { type: "button", onclick: () => this.enrol() }, "Enrol (Enter)"),
        make("button", { type: "button", onclick: () => { this.ask("discard", { take: clip.take }).catch(() => {}); this.discard(); } }, "Discard"))));
    this.drawTake(); this.waitingFiles(); this.name.focus();
  }
  drawTake() { const picture = this.takeBox.querySelector("canvas"); if (picture && this.taken) spectrogram(picture, this.taken, this.fore); }
  discard() {
    this.taken = null; this.takeBox.hidden = true; this.takeBox.replaceChildren();
    this.name.value = this.place.value = ""; this.typed = {};
    this.nextFile();
  }
  enrol() {
    const begun = performance.now(), { take } = this.taken;
    if (this.enrolling === take) return;
    this.enrolling = take;
    return this.ask("enrol", { take, name: this.name.value, place: this.place.value }).then(([message]) => {
      if (this.taken?.take === take) this.discard();
      this.trouble.textContent = ""; this.set(message); if (message.verdict) this.show(message.verdict);
      requestAnimationFrame(() => { this.enrolled = performance.now() - begun; });
    }).catch((e) => { this.enrolling = null; this.tell(e); });
  }
  play(clip) {
    this.speaker ??= new AudioContext(); this.speaker.resume(); this.source?.stop();
    if (!this.out) { this.out = this.speaker.createAnalyser(); this.out.connect(this.speaker.destination); }
    this.source = begin(clip, this.out); this.played = clip.sound.length;
  }

  // What is enrolled.
  change(ask, facts = {}) { return this.ask(ask, facts).then(([message]) => { this.trouble.textContent = ""; this.set(message); }).catch((e) => this.tell(e)); }
  turnBack(ask) {  // a double click means one
    if (performance.now() - (this.turned ?? -1e9) < 500) return;
    this.turned = performance.now();
    return this.change(ask);
  }
  set(message) {
    this.classes = message.classes; this.clips = message.clips; this.clock(message);
    if (message.timeline) { this.timeline = message.timeline; }
    this.names.replaceChildren(...message.classes.map((n) => make("option", { value: n })));
    for (const [node, what, sentence] of [[this.undo, "Undo", message.undo], [this.redo, "Redo", message.redo]]) { node.disabled = !sentence; node.title = sentence || ""; node.setAttribute("aria-label", sentence ? `${what}: ${sentence}` : what); }
    this.redo.hidden = message.redo == null; this.map.textContent = message.map || "";
    this.method.value = message.method; this.sure.value = message.sure; this.limit.value = message.limit;
    this.fromSet.hidden = !message.sets.length; if (!this.shelf.options.length) this.shelf.append(...message.sets.map((n) => make("option", { value: n }, words(n))));
    if (message.hints) this.advise(message.hints);
    this.stale.replaceChildren(...(message.stale ? [message.stale, " ", make("button", { type: "button", onclick: () => this.change("recompute") }, "Compute them again")] : []));
    this.setRows(message.clips);
    if (!this.bars.childElementCount || this.classes.length < 2) this.show(null);
    this.drawTime();
  }

  // Rows stay where they are, so that a name that is being typed is left alone.
  setRows(clips) {
    if (!clips.length) { this.rows.clear(); this.body = null; this.list.replaceChildren(make("p", { class: "cx-note" }, "Nothing yet. Two scenes make a start.")); return; }
    if (!this.body) { this.body = make("tbody"); this.list.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...["scene", "where", "from", "length", "when", ""].map((t) => make("th", {}, t)))), this.body)); }
    const there = new Set(clips.map((c) => c.id));
    for (const [id, row] of this.rows) if (!there.has(id)) { this.rows.delete(id); row.dead = true; row.node.remove(); }
    let at = this.body.firstChild;
    for (const clip of clips) {
      const row = this.rows.get(clip.id) ?? this.newRow(clip.id);
      row.scene = clip.scene;
      if (!row.field.matches(":focus")) row.field.value = clip.scene;
      [clip.place, clip.source, `${clip.seconds.toFixed(0)} s`, when(clip.time)].forEach((text, i) => { if (row.cells[i].textContent !== text) row.cells[i].textContent = text; });
      if (row.node === at) at = at.nextSibling; else this.body.insertBefore(row.node, at);
    }
  }
  newRow(id) {
    const row = { cells: [0, 1, 2, 3].map(() => make("td")) };
    row.field = make("input", { class: "ce-name", "aria-label": `scene of clip ${id}`, onchange: () => this.relabel(id, row), onblur: () => { if (!row.asking) row.field.value = row.scene; },
      onkeydown: (e) => { if (e.key === "Escape") row.field.value = row.scene; } });
    row.node = make("tr", {}, make("td", {}, row.field), ...row.cells,
      make("td", {}, make("button", { type: "button", "aria-label": `listen to clip ${id}`, onclick: () => this.ask("clip", { clip: id }).then((a) => this.play(clipOf(a))).catch((e) => this.tell(e)) }, "▶"), " ",
        make("button", { type: "button", "aria-label": `delete clip ${id}`, onclick: () => this.change("delete", { clip: id }) }, "×")));
    this.rows.set(id, row);
    return row;
  }
  relabel(id, row) {
    const name = row.field.value.trim();
    if (row.dead) return;
    if (!name || name === row.scene) { row.field.value = row.scene; if (!name) this.tell("A scene needs a name: the old one is back."); return; }
    row.asking = true;
    return this.ask("relabel", { clip: id, name }).then(([message]) => { row.asking = false; this.trouble.textContent = ""; this.set(message); row.field.value = row.scene; })
      .catch((e) => { row.asking = false; row.field.value = row.scene; this.tell(e); });
  }

  advise(hints) { this.hints.replaceChildren(...hints.map((text) => make("li", {}, text))); }

  // Three seconds with the browser's processing and three without, compared band by band; then the microphone is as it was before.
  async compare() {
    const seconds = 3, before = this.on;
    this.probe.disabled = true;
    try {
      for (const processed of [true, false]) {
        if (this.on) this.stop();
        await this.start(processed);
        if (!this.on) return;
        const stream = this.stream;
        while (stream === this.stream && this.heardTo < seconds + 1) await new Promise((go) => setTimeout(go, 100));
        if (stream !== this.stream) { if (!this.on && this.state === "off") this.set_state("off", STOPPED); return; }
        const [message] = await this.ask("probe", { start: 1, stop: 1 + seconds, processed });
        if (message.bands) this.bands.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...["band", "as it came [dB]", "processed [dB]", "change [dB]"].map((t) => make("th", {}, t)))), make("tbody", {}, ...message.bands.map((row) => make("tr", {}, ...row.map((v, i) => make(i ? "td" : "th", {}, i ? v.toFixed(1) : v)))))),
          make("div", { class: "cx-note" }, "Two stretches of three seconds, one after the other: part of the change may be that the sound itself was another. A steady sound compares best."));
      }
      if (!before) this.stop();
    } finally { this.probe.disabled = false; }
  }

  close() {  // the cell is run again, or the kernel is gone and the page still shows this
    this.gone(); clearInterval(this.watch); cancelAnimationFrame(this.frame); this.speaker?.close(); this.model.off(null, null, this);
  }
}

function render({ model, el }) { const enroller = new Enroller(model, el); enroller.root.enroller = enroller; return () => enroller.close(); }
export default { render };
