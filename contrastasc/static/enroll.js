// Live enrolment's front end: the microphone, what it hears, and the clips that were named. Python listens, learns and keeps.

const CHUNK = 0.25, WINDOW = 8, SILENT = -70, STARTING = 2;  // seconds in a chunk; chunks on their way at most; dB; seconds until silence counts

// Runs beside the page: frames to 16-bit mono chunks, each with the number of its first frame. The first call is not used: a hole follows it.
const WORKLET = `
class Tap extends AudioWorkletProcessor {
  constructor({ processorOptions: { size } }) { super(); this.size = size; this.calls = 0; this.start(0); }
  start(at) { this.at = at; this.n = 0; this.clipped = 0; this.part = new Int16Array(this.size); }
  flush() { if (this.n) this.port.postMessage({ at: this.at - this.zero, clipped: this.clipped, sound: this.part.slice(0, this.n) }); }
  process([input]) {
    if (!input.length || !this.calls++) return true;
    this.zero ??= (this.at = currentFrame);
    if (currentFrame !== this.at + this.n) { this.flush(); this.start(currentFrame); }
    for (let i = 0; i < input[0].length; i++) {
      let x = 0;
      for (const channel of input) x += channel[i] / input.length;
      if (Math.abs(x) >= 0.999) this.clipped++;
      this.part[this.n++] = Math.max(-32768, Math.min(32767, Math.round(32768 * x)));
      if (this.n === this.size) { this.flush(); this.start(currentFrame + i + 1); }
    }
    return true;
  }
}
registerProcessor("tap", Tap);`;

const CSS = BASE + `
.ce-two { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 8px; } .ce-two canvas, .ce-time { width: 100%; display: block; border: 1px solid var(--line); border-radius: 4px; box-sizing: border-box; }
.ce-two canvas { height: 96px; } .ce-time { height: 62px; }
.ce-state { font-weight: 600; } .ce-warn { border-left: 4px solid #D55E00; padding-left: 6px; } .ce-warn:empty, .ce-state:empty { display: none; }
.ce-word { font-size: 22px; min-height: 1.4em; margin: 6px 0 2px; } .ce-word small { font-size: 13px; opacity: .8; }
.ce-bars { display: grid; grid-template-columns: fit-content(35%) 1fr 3.5em; gap: 3px 8px; align-items: center; margin-bottom: 6px; }
.ce-bars .ce-track { background: var(--soft); height: 16px; border-radius: 3px; overflow: hidden; } .ce-bars .ce-fill { height: 100%; transition: width .15s; }
.ce-bars span:nth-child(3n) { text-align: right; font-variant-numeric: tabular-nums; }
.cx .ce-name { width: 150px; } .ce-part { border-top: 1px solid var(--line); padding-top: 6px; margin-top: 6px; } .ce-part h4 { margin: 0 0 4px; font-size: 13px; }
.ce-take { display: grid; grid-template-columns: minmax(0, 320px) minmax(0, 1fr); gap: 10px; margin-bottom: 6px; } .ce-take canvas { width: 100%; height: 150px; display: block; }
.ce-list { max-height: 230px; overflow-y: auto; } .cx .ce-list td, .cx .ce-list th { text-align: left; } .ce-list td:nth-child(n + 4) { white-space: nowrap; }
.ce-drop { outline: 3px dashed #0072B2; outline-offset: -3px; }
.ce ul { margin: 2px 0; padding-left: 18px; }
@media (prefers-reduced-motion: reduce) { .ce-bars .ce-fill { transition: none; } }
@container (max-width: 640px) { .ce-two, .ce-take { grid-template-columns: minmax(0, 1fr); } }
`;

const SAID = {
  NotAllowedError: ["denied", "The browser may not use the microphone. Allow it in the address bar (the icon before the address), then press the button again. Files work without it."],
  NotFoundError: ["no microphone", "There is no microphone. Plug one in, or choose a file below."],
  NotReadableError: ["busy", "The microphone cannot be opened: another program may hold it. Close that program, then press the button again."],
};
const INSECURE = "This page came over plain http, and browsers give such pages no microphone. Ask for the https address of this server, or forward its port to localhost. Files work as they are.";
const ABSENT = "This program gives notebooks no microphone (VS Code does not). Open the notebook in JupyterLab in a browser, or choose a file below.";
const LOST = "Python has not answered for some seconds. If it is busy with a cell, wait: what it cannot take is dropped and counted. If the kernel was restarted, run this cell again.";
const GONE = "The kernel that this belonged to is gone. Run this cell again; what was enrolled is still in its file.";

class Enroller {
  constructor(model, el) {
    this.model = model; this.waiting = new Map(); this.number = 0; this.state = "off"; this.timeline = []; this.delays = []; this.lags = [];
    this.peak = 0; this.dropped = 0; this.pending = []; this.mels = [];
    this.build();
    el.append(make("style", {}, CSS), this.root);
    model.on("msg:custom", (message, buffers) => this.heard(message, buffers), this);
    this.theme(); this.watch = setInterval(() => { if (this.theme()) { this.drawTime(); this.drawMel(); this.drawTake(); } this.mind(); }, 500);
    this.ask("hello").then(([message]) => this.set(message)).catch((error) => this.tell(error));
    this.drawTime(); this.drawMel(); this.drawWave();
  }

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
    const asked = this.waiting.get(message.id);
    if (!asked) return;
    this.waiting.delete(message.id);
    message.error ? asked.fail(new Error(message.error)) : asked.done([message, buffers]);
  }
  gone() { this.stop(); this.set_state("gone", GONE); this.switch.disabled = true; }  // the kernel, or this widget's place in it
  tell(error) { if (this.state !== "gone") this.trouble.textContent = error?.message || String(error); }

  build() {
    const button = (text, act, more = {}) => make("button", { type: "button", onclick: act, ...more }, text);
    this.root = make("div", { class: "cx ce", role: "group", "aria-label": "live enrolment" });
    this.switch = button("🎙 Listen", () => this.on ? this.stop() : this.start().catch((e) => this.failed(e)));
    this.line = make("span", { class: "ce-state", role: "status" }); this.about = make("span", { class: "cx-note" });
    this.warning = make("div", { class: "ce-warn", role: "alert" }); this.trouble = make("div", { class: "ce-warn", role: "alert" });
    this.meter = make("meter", { min: -70, max: 0, low: -60, high: -3, optimum: -20, value: -70, "aria-label": "level in dB below full scale" }); this.loud = make("span", { class: "cx-note" });
    this.wave = make("canvas", { role: "img", "aria-label": "waveform of the last moment" }); this.mel = make("canvas", { role: "img", "aria-label": "log-mel spectrogram of the last ten seconds" });
    this.word = make("div", { class: "ce-word", "aria-live": "polite" }); this.bars = make("div", { class: "ce-bars" });
    this.time = make("canvas", { class: "ce-time", role: "img" });
    this.names = make("datalist", { id: `ce-${Math.random().toString(36).slice(2)}` });
    this.name = make("input", { class: "ce-name", list: this.names.id, placeholder: "scene, e.g. kitchen", "aria-label": "name of the scene", onkeydown: (e) => { if (e.key === "Enter" && this.taken) this.enrol(); } });
    this.place = make("input", { class: "ce-name", placeholder: "where (optional)", "aria-label": "place of the recording" });
    this.length = make("select", { "aria-label": "seconds to record" }, ...[3, 5, 10, 20].map((s) => make("option", { value: s, selected: s === 5 }, `${s} s`)));
    this.record = button("● Record", () => this.begin(), { disabled: true }); this.keep = button("Keep the last seconds", () => this.take(this.heardTo - +this.length.value, this.heardTo), { disabled: true });
    this.file = make("input", { type: "file", accept: "audio/*", hidden: true, onchange: () => { for (const f of this.file.files) this.upload(f); this.file.value = ""; } });
    this.progress = make("progress", { max: 1, value: 0, hidden: true, "aria-label": "recording" });
    this.shelf = make("select", { "aria-label": "class of the set" }); this.shelfNumber = make("input", { type: "number", min: 1, value: 1, style: "width: 60px", "aria-label": "clip of that class" });
    this.fromSet = make("span", { hidden: true }, "or from the set: ", this.shelf, " clip ", this.shelfNumber, " ", button("Take", () => this.ask("pick", { scene: this.shelf.value, nth: +this.shelfNumber.value - 1 }).then((a) => this.showTake(a)).catch((e) => this.tell(e))));
    this.taken = null; this.takeBox = make("div", { class: "ce-take", hidden: true });
    this.list = make("div", { class: "ce-list" }); this.undo = button("Undo", () => this.change("undo"), { disabled: true }); this.hints = make("ul", { "aria-label": "hints" }); this.stale = make("div", { class: "ce-warn" });
    this.method = make("select", { onchange: () => this.change("settings", { method: this.method.value }) }, make("option", { value: "logistic" }, "logistic regression"), make("option", { value: "mean" }, "nearest mean"));
    const slide = (name, low, high, label) => this[name] = make("input", { type: "range", min: low, max: high, step: 0.05, "aria-label": label, onchange: (e) => this.change("settings", { [name]: +e.target.value }) });
    this.probe = button("What does the browser do to sound?", () => this.compare().catch((e) => this.failed(e))); this.bands = make("div");
    this.root.append(
      make("div", { class: "cx-bar" }, this.switch, this.line, this.meter, this.loud, this.about), this.warning, this.trouble,
      make("div", { class: "ce-two" }, this.wave, this.mel), this.word, this.bars, this.time,
      make("div", { class: "cx-bar" }, make("label", {}, "classifier ", this.method), make("label", {}, "sure from ", slide("sure", 0.2, 0.95, "least share for a verdict")), make("label", {}, "unknown beyond ", slide("limit", 0.3, 3, "novelty from which a sound is unknown")), this.probe), this.bands,
      make("div", { class: "ce-part" }, make("h4", {}, "Enrol a scene"),
        make("div", { class: "cx-bar" }, this.name, this.names, this.place, this.length, this.record, this.keep, this.progress, button("Choose a file…", () => this.file.click()), this.file, make("span", { class: "cx-note" }, "or drop one here"), this.fromSet), this.takeBox),
      make("div", { class: "ce-part" }, make("h4", {}, "Enrolled clips ", this.undo), this.stale, this.list, this.hints));
    this.root.addEventListener("dragover", (e) => { e.preventDefault(); this.root.classList.add("ce-drop"); });
    this.root.addEventListener("dragleave", () => this.root.classList.remove("ce-drop"));
    this.root.addEventListener("drop", (e) => { e.preventDefault(); this.root.classList.remove("ce-drop"); for (const f of e.dataTransfer.files) this.upload(f); });
  }

  // The microphone.
  get on() { return Boolean(this.context); }
  set_state(state, text = "") { this.state = state; this.line.textContent = text; this.switch.textContent = this.on ? "■ Stop" : "🎙 Listen"; this.record.disabled = this.keep.disabled = !this.on; }
  failed(error) {
    this.stop();
    const [state, text] = SAID[error.name] || ["failed", `The microphone did not start: ${error.message || error.name}`];
    this.set_state(state, text); this.ask("state", { state }).catch(() => {});
  }

  async start(processed = false) {
    this.trouble.textContent = "";
    if (!navigator.mediaDevices) { this.set_state(window.isSecureContext ? "absent" : "insecure", window.isSecureContext ? ABSENT : INSECURE); this.ask("state", { state: this.state }).catch(() => {}); return; }
    this.set_state("asking", "The browser asks whether it may listen.");
    const wanted = { echoCancellation: processed, noiseSuppression: processed, autoGainControl: processed, channelCount: { ideal: 2 } };
    this.media = await navigator.mediaDevices.getUserMedia({ audio: wanted });
    this.context = new AudioContext(); await this.context.resume();
    const url = URL.createObjectURL(new Blob([WORKLET], { type: "text/javascript" }));
    try { await this.context.audioWorklet.addModule(url); } finally { URL.revokeObjectURL(url); }
    const [track] = this.media.getAudioTracks(), source = this.context.createMediaStreamSource(this.media), rate = this.context.sampleRate;
    track.onended = () => { this.stop(); this.set_state("unplugged", "The microphone went away. Plug it in and press the button."); };
    const used = track.getSettings(), flags = { echoCancellation: "echo cancellation", noiseSuppression: "noise suppression", autoGainControl: "automatic gain" };
    const active = Object.keys(flags).filter((f) => used[f]).map((f) => flags[f]);
    this.used = { device: track.label, rate, channels: used.channelCount ?? null, ...Object.fromEntries(Object.keys(flags).map((f) => [f, used[f] ?? null])) };
    this.about.textContent = `${track.label || "microphone"}, ${rate / 1000} kHz, ${active.length ? active.join(" and ") + " on" : "nothing processed"}`;
    this.warning.textContent = active.length && !processed ? `The browser keeps ${active.join(", ")} on although it was asked not to: it removes what scenes are made of.` : "";
    this.tap = new AudioWorkletNode(this.context, "tap", { numberOfOutputs: 0, channelCountMode: "max", processorOptions: { size: Math.round(CHUNK * rate) } });
    this.look = this.context.createAnalyser(); this.look.fftSize = 2048; source.connect(this.look); source.connect(this.tap);
    this.stream = Math.random().toString(36).slice(2); this.heardTo = 0; this.pending = []; this.dropped = 0; this.lost = 0; this.lags = []; this.delays = []; this.quiet = 0; this.mels = []; this.begun = performance.now();
    this.tap.port.onmessage = ({ data }) => this.chunk(data);
    this.set_state("listening", "listening"); this.drawWave();
  }

  stop() {
    this.media?.getTracks().forEach((t) => { t.onended = null; t.stop(); }); this.context?.close(); this.tap?.port.close();
    this.media = this.context = this.tap = this.look = null; this.recording = null; this.progress.hidden = true; this.meter.value = -70; this.loud.textContent = "";
    this.set_state("off", "");
  }

  // A chunk goes to Python unless WINDOW of them are on their way: then the newest is dropped, and counted where Python sees the hole.
  chunk({ at, clipped, sound }) {
    if (!this.on) return;
    const rate = this.context.sampleRate, born = performance.now(), end = at + sound.length;
    this.level(sound, clipped);
    if (this.pending.length >= WINDOW) { this.dropped += sound.length / rate; this.busy(); return; }
    const note = { end, born };
    this.pending.push(note);
    this.ask("chunk", { stream: this.stream, rate, at, used: this.used }, [sound.buffer])
      .then(([message, buffers]) => {
        this.pending = this.pending.filter((p) => p !== note); this.lags.push(performance.now() - born); if (this.lags.length > 2400) this.lags.shift();
        this.heardTo = end / rate; this.lost = message.lost; this.busy();
        if (message.verdict) this.second(message, buffers, born);
        if (this.recording) this.recorded();
      }).catch((error) => { this.pending = this.pending.filter((p) => p !== note); if (this.on) { this.stop(); this.tell(error); } });
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
    const words = [`${Math.round(loud)} dB`];
    if (clipped) { this.clipped = performance.now(); }
    if (performance.now() - (this.clipped ?? -1e9) < 2000) words.push("too loud: it clips");
    if (this.quiet > STARTING / CHUNK) words.push("silent: is the microphone muted?");
    this.loud.textContent = words.join(", "); this.loud.classList.toggle("ce-warn", words.length > 1);
  }

  // What Python made of the second that just ended.
  second(message, buffers, born) {
    if (buffers.length) { this.mels.push(melPicture(new Uint8Array(bytes(buffers[0])), ...message.shape)); this.mels = this.mels.slice(-10); this.ticks = message.ticks; this.drawMel(); }
    this.timeline.push(...message.seconds); this.timeline = this.timeline.slice(-600);
    this.show(message.verdict); this.drawTime();
    requestAnimationFrame(() => { this.delays.push(performance.now() - born); if (this.delays.length > 900) this.delays.shift(); });
  }
  show({ word, shares, novelty }) {
    const scenes = Object.keys(shares), top = Math.max(...Object.values(shares), 0), said = words(word);
    const detail = !scenes.length ? "" : word === "unknown" ? `nothing like what was enrolled (novelty ${short(novelty)})` : `${Math.round(100 * top)} %`;
    this.word.replaceChildren(said || (this.on ? "enrol two scenes, and the first words appear here" : ""), " ", make("small", {}, detail));
    this.bars.replaceChildren(...scenes.flatMap((n) => [make("span", {}, words(n)), make("div", { class: "ce-track" }, make("div", { class: "ce-fill", style: `width: ${100 * shares[n]}%; background: ${this.colour(n)}` })), make("span", {}, `${Math.round(100 * shares[n])} %`)]));
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
    ctx.stroke(); this.frame = requestAnimationFrame(() => this.drawWave());
  }
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
    const [ctx, w, h] = this.canvas(this.time), span = 300, now = this.timeline.at(-1)?.time ?? 0, base = h - 16, wide = w / span;
    ctx.textAlign = "left"; ctx.textBaseline = "middle";
    let last = "", lastX = -1e9;
    for (const { time, word, share } of this.timeline) {
      const x = w - (now - time + 1) * wide;
      if (x < 0) continue;
      const named = this.classes?.includes(word);
      ctx.fillStyle = word === "lost" ? "#D55E00" : named ? this.colour(word) : "#999"; ctx.globalAlpha = named || word === "lost" ? 1 : 0.4;
      const tall = word === "lost" ? 4 : word ? Math.max(4, (base - 16) * share) : 2;
      ctx.fillRect(x, base - tall, Math.max(wide, 1), tall); ctx.globalAlpha = 1; ctx.fillStyle = this.fore;
      if (word !== last && word && x - lastX > 70 && x < w - 40) { ctx.fillText(words(word), x, 8); lastX = x; last = word; }
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
  async upload(file) {
    const data = await file.arrayBuffer(), part = 2 ** 20, parts = Math.max(1, Math.ceil(data.byteLength / part));
    let answer;
    try { for (let i = 0; i < parts; i++) answer = await this.ask("file", { name: file.name, part: i, parts }, [data.slice(i * part, (i + 1) * part)]); this.showTake(answer); }
    catch (error) { this.tell(error); }
  }
  showTake(answer) {
    const clip = clipOf(answer), picture = make("canvas", { role: "img", "aria-label": `log-mel spectrogram, ${clip.seconds} s` });
    this.taken = clip; this.trouble.textContent = ""; this.takeBox.hidden = false;
    if (!this.name.value && clip.name) this.name.value = clip.name;
    if (clip.place) this.place.value = clip.place;
    this.takeBox.replaceChildren(picture, make("div", {},
      make("div", {}, `${clip.seconds.toFixed(1)} s, ${clip.from}`), make("div", {}, clip.verdict.word ? `sounds like: ${words(clip.verdict.word)}` : ""),
      ...clip.warnings.map((w) => make("div", { class: "ce-warn" }, w)),
      make("div", { class: "cx-bar" }, make("button", { type: "button", onclick: () => this.play(clip) }, "▶ Listen back"), make("button", { type: "button", onclick: () => this.enrol() }, "✓ Enrol (Enter)"), make("button", { type: "button", onclick: () => this.discard() }, "Discard"))));
    this.drawTake(); this.name.focus();
  }
  drawTake() { const picture = this.takeBox.querySelector("canvas"); if (picture && this.taken) spectrogram(picture, this.taken, this.fore); }
  discard() { this.taken = null; this.takeBox.hidden = true; this.takeBox.replaceChildren(); }
  enrol() {
    const begun = performance.now();
    return this.ask("enrol", { name: this.name.value, place: this.place.value }).then(([message]) => {
      this.discard(); this.trouble.textContent = ""; this.set(message); if (message.verdict) this.show(message.verdict);
      requestAnimationFrame(() => { this.enrolled = performance.now() - begun; });
    }).catch((e) => this.tell(e));
  }
  play(clip) {
    this.speaker ??= new AudioContext(); this.speaker.resume(); this.source?.stop();
    if (!this.out) { this.out = this.speaker.createAnalyser(); this.out.connect(this.speaker.destination); }
    this.source = begin(clip, this.out); this.played = clip.sound.length;
  }

  // What is enrolled.
  change(ask, facts = {}) { return this.ask(ask, facts).then(([message]) => { this.trouble.textContent = ""; this.set(message); }).catch((e) => this.tell(e)); }
  set(message) {
    this.classes = message.classes; this.clips = message.clips;
    if (message.timeline) { this.timeline = message.timeline; }
    this.names.replaceChildren(...message.classes.map((n) => make("option", { value: n })));
    this.undo.disabled = !message.undo; this.undo.textContent = message.undo ? `Undo: ${message.undo}` : "Undo";
    this.method.value = message.method; this.sure.value = message.sure; this.limit.value = message.limit;
    this.fromSet.hidden = !message.sets.length; if (!this.shelf.options.length) this.shelf.append(...message.sets.map((n) => make("option", { value: n }, words(n))));
    if (message.hints) this.advise(message.hints);
    this.stale.replaceChildren(...(message.stale ? [message.stale, " ", make("button", { type: "button", onclick: () => this.change("recompute") }, "Compute them again")] : []));
    const rows = message.clips.map((c) => make("tr", {}, make("td", {}, make("input", { class: "ce-name", value: c.scene, "aria-label": `scene of clip ${c.id}`, onchange: (e) => this.change("relabel", { clip: c.id, name: e.target.value }) })),
      make("td", {}, c.place), make("td", {}, c.source), make("td", {}, `${c.seconds.toFixed(0)} s`), make("td", {}, c.time),
      make("td", {}, make("button", { type: "button", "aria-label": `listen to clip ${c.id}`, onclick: () => this.ask("clip", { clip: c.id }).then((a) => this.play(clipOf(a))).catch((e) => this.tell(e)) }, "▶"), " ",
        make("button", { type: "button", "aria-label": `delete clip ${c.id}`, onclick: () => this.change("delete", { clip: c.id }) }, "✕"))));
    this.list.replaceChildren(rows.length ? make("table", {}, make("thead", {}, make("tr", {}, ...["scene", "where", "from", "length", "when", ""].map((t) => make("th", {}, t)))), make("tbody", {}, ...rows)) : make("p", { class: "cx-note" }, "Nothing yet. Two scenes make a start."));
    this.drawTime();
  }

  advise(hints) { this.hints.replaceChildren(...hints.map((text) => make("li", {}, text))); }

  // Three seconds with the browser's processing and three without, compared band by band.
  async compare() {
    const seconds = 3;
    this.probe.disabled = true;
    try {
      for (const processed of [true, false]) {
        if (this.on) this.stop();
        await this.start(processed);
        if (!this.on) return;
        while (this.on && this.heardTo < seconds + 1) await new Promise((go) => setTimeout(go, 100));
        const [message] = await this.ask("probe", { start: 1, stop: 1 + seconds, processed });
        if (message.bands) this.bands.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...["band", "as it came [dB]", "processed [dB]", "change [dB]"].map((t) => make("th", {}, t)))), make("tbody", {}, ...message.bands.map((row) => make("tr", {}, ...row.map((v, i) => make(i ? "td" : "th", {}, i ? v.toFixed(1) : v)))))));
      }
    } finally { this.probe.disabled = false; }
  }

  close() {  // the cell is run again, or the kernel is gone and the page still shows this
    this.gone(); clearInterval(this.watch); cancelAnimationFrame(this.frame); this.speaker?.close(); this.model.off(null, null, this);
  }
}

function render({ model, el }) { const enroller = new Enroller(model, el); enroller.root.enroller = enroller; return () => enroller.close(); }
export default { render };
