// Mouse, touch and keys to gestures; each finished gesture becomes one message to Python, which
// decides what it does and answers with a new `_view`. Strokes are drawn at once.

const NEAR = 6; // stage pixels within which a click counts as repeated

/** The whole picker. */
class Picker extends Panel {
  constructor(model, el) {
    super(model, el);
    this.listen();
    this.showChoices();
    this.show();
  }

  listen() {
    const { canvas, root, model } = this;
    const on = (target, names) => Object.entries(names).forEach(([name, f]) => target.addEventListener(name, f, { passive: false }));
    on(canvas, {
      pointerdown: (e) => this.down(e), pointermove: (e) => this.moved(e), pointerup: (e) => this.up(e),
      pointercancel: () => this.cancel(), wheel: (e) => this.wheel(e),
      pointerleave: () => { this.stage.pointer = null; this.aim(); this.stage.draw(); },
      contextmenu: (e) => { e.preventDefault(); e.stopPropagation(); },
      blur: () => { this.space = false; this.stage.cursor = null; this.aim(); this.stage.draw(); },
    });
    on(root, { keydown: (e) => this.key(e), keyup: (e) => { if (e.key === " ") this.space = false; } });
    this.watch = [
      ["change:_view", () => this.show()], ["change:_choices", () => this.showChoices()],
      ...["tool", "opacity", "brush"].map((trait) => [`change:${trait}`, () => this.showTraits()]),
    ];
    for (const [name, callback] of this.watch) model.on(name, callback);
    this.sizes = new ResizeObserver(() => { this.stage.resize(canvas.parentElement.clientWidth); this.showTraits(); });
    this.sizes.observe(canvas.parentElement);
  }

  stop() {
    this.sizes.disconnect();
    for (const [name, callback] of this.watch) this.model.off(name, callback);
  }

  send(gesture, values = {}) {
    const id = this.next++;
    const sent = performance.now();
    this.waiting.set(id, sent);
    this.root.setAttribute("aria-busy", "true");
    this.stage.drawn.push(() => { this.root.dataset.preview = (performance.now() - sent).toFixed(1); });
    this.model.send({ id, do: gesture, with: values });
    if (gesture === "take") this.stage.foresee(values.candidate, values.new);
  }

  /** Let the segmenter get ready while a person still looks for the place to click. */
  prepare() {
    if (this.prepared || !this.model.get("_can").segment) return;
    this.prepared = true;
    this.send("prepare");
  }

  choose(tool) {
    this.cancel();
    this.model.set("tool", tool);
    this.model.save_changes();
  }

  zoom(factor, x, y) {
    if (factor === 0) this.stage.zoom = 1;
    this.stage.zoomBy(factor || 1, x, y);
    this.showTraits();
  }

  /** Find what a click would take, and say so beside the pointer. */
  aim() {
    const { stage } = this;
    const place = stage.cursor ?? (stage.pointer && stage.toPhoto(...stage.pointer));
    stage.label = "";
    stage.hover = null;
    if (!place || this.model.get("tool") !== "select" || stage.drag) return;
    const target = this.candidate(...place);
    if (target === null) return;
    const repeated = this.isRepeated(...place);
    stage.hover = repeated ? null : target;
    const { name } = stage.choices[target];
    const own = stage.objects[stage.active]?.choice === target;
    stage.label = repeated ? (own ? "" : `again: ${name}`) : name;
  }

  isRepeated(x, y) {
    if (!this.clicked) return false;
    const [[u, v], [s, t]] = [this.stage.toStage(x, y), this.stage.toStage(...this.clicked)];
    return Math.hypot(u - s, v - t) <= NEAR;
  }

  /** Index of the mask that a click at a place of the photo takes, null for none. */
  candidate(x, y) {
    const { objects, active } = this.stage;
    const below = this.stage.below(x, y);
    if (!below.length) return null;
    const others = new Set(objects.filter((_, i) => i !== active).map((o) => o.choice));
    const free = below.filter((i) => !others.has(i));
    const at = free.indexOf(objects[active]?.choice);
    if (this.isRepeated(x, y) && at >= 0) return free[(at + 1) % free.length];
    return objects[active]?.pixels ? below[0] : (free[0] ?? below[0]);
  }

  place(event) {
    const bounds = this.canvas.getBoundingClientRect();
    return [event.clientX - bounds.left, event.clientY - bounds.top];
  }

  down(event) {
    if (event.button > 2 || this.stage.drag) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    const { stage } = this;
    stage.cursor = null;
    const at = this.place(event);
    const tool = event.button === 1 || this.space ? "move" : this.model.get("tool");
    stage.drag = { tool, at, from: at, button: event.button, moved: false };
    if (tool === "brush" || tool === "eraser") this.startStroke(stage.toPhoto(...at), tool === "eraser" || event.button === 2);
    this.aim();
    stage.draw();
  }

  startStroke(place, erase) {
    const { stage } = this;
    Object.assign(stage.drag, { stroke: [place], erase, radius: this.model.get("brush") });
    stage.startLive();
    stage.paintLive(place, place, stage.drag.radius, erase);
  }

  moved(event) {
    const { stage } = this;
    stage.pointer = this.place(event);
    stage.cursor = null;
    const { drag } = stage;
    if (drag) {
      const [x, y] = stage.pointer;
      drag.moved ||= Math.hypot(x - drag.from[0], y - drag.from[1]) > 3;
      if (drag.stroke) this.moreStroke(event);
      else if (drag.tool === "box" && drag.moved) drag.box = [...stage.toPhoto(...drag.from), ...stage.toPhoto(x, y)];
      else if (["move", "select"].includes(drag.tool) && drag.moved) stage.pan(x - drag.at[0], y - drag.at[1]);
      drag.at = [x, y];
    }
    this.aim();
    stage.draw();
  }

  moreStroke(event) {
    const { drag } = this.stage;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) {
      const place = this.stage.toPhoto(...this.place(each));
      const last = drag.stroke.at(-1);
      const step = Math.max(1, drag.radius / 6); // closer points change nothing that one can see
      if (Math.hypot(place[0] - last[0], place[1] - last[1]) < step || drag.stroke.length >= 5000) continue;
      drag.stroke.push(place);
      this.stage.paintLive(last, place, drag.radius, drag.erase);
    }
  }

  up(event) {
    const { stage } = this;
    const { drag } = stage;
    if (!drag) return;
    stage.drag = null;
    const place = stage.toPhoto(...this.place(event));
    if (drag.stroke) this.send("stroke", { points: drag.stroke, radius: drag.radius, erase: drag.erase });
    else if (drag.box) this.send("box", boxOf(drag.box));
    else if (!drag.moved) this.click(drag.tool, place, event.shiftKey, drag.button === 2);
    this.aim();
    stage.draw();
  }

  click(tool, [x, y], shift, right) {
    const [W, H] = [this.stage.W, this.stage.H];
    const isInside = x >= 0 && y >= 0 && x < W && y < H;
    if (!isInside || tool === "move") return;
    if (tool === "select") {
      const candidate = this.candidate(x, y);
      this.clicked = [x, y];
      if (candidate !== null) this.send("take", { candidate, new: shift });
      else this.say(this.stage.choices.length ? "No mask here" : "There are no masks to choose among; use another tool");
    } else if (tool === "point" || tool === "avoid") {
      this.send("point", { x, y, positive: (tool === "point") !== (right || shift) });
    } else if (tool === "box") this.say("Drag a box around the object");
  }

  say(text) {
    this.status.textContent = text;
    this.status.classList.remove("s3-failed");
  }

  cancel() {
    const { stage } = this;
    const { drag } = stage;
    stage.drag = null;
    this.corner = null;
    if (drag?.stroke && !this.waiting.size) stage.live = null;
    stage.draw();
  }

  wheel(event) {
    if (document.activeElement !== this.canvas && !event.ctrlKey) return; // the page scrolls
    event.preventDefault();
    this.zoom(Math.exp(-Math.max(-60, Math.min(60, event.deltaY)) / 200), ...this.place(event));
  }

  key(event) {
    if (event.target.matches("input[type=text], input[type=range]")) {
      event.stopPropagation();
      return;
    }
    if (this.shortcut(event) || (event.target === this.canvas && this.cursorKey(event))) {
      event.preventDefault();
      event.stopPropagation();
    }
  }

  /** Do what a key means wherever the focus is in the picker; false where it means nothing. */
  shortcut(event) {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.ctrlKey || event.metaKey) {
      if (key === "z") this.send(event.shiftKey ? "redo" : "undo");
      else if (key === "y") this.send("redo");
      return key === "z" || key === "y";
    }
    if (event.altKey) return false;
    const tool = TOOLS.find((each) => each[2] === key);
    const grow = (factor) => {
      this.model.set("brush", Math.min(this.widest, Math.max(1, this.model.get("brush") * factor)));
      this.model.save_changes();
    };
    const actions = {
      z: () => this.send(event.shiftKey ? "redo" : "undo"), y: () => this.send("redo"), c: () => this.send("clear"),
      n: () => this.send("add"), Delete: () => this.send("remove", { number: this.stage.active }),
      "[": () => grow(0.8), "]": () => grow(1.25), "+": () => this.zoom(1.25), "=": () => this.zoom(1.25),
      "-": () => this.zoom(0.8), f: () => this.zoom(0), Escape: () => this.cancel(),
    };
    if (tool) this.choose(tool[0]);
    else if (/^[0-9]$/.test(key)) { if (this.stage.objects[key]) this.send("select", { number: Number(key) }); }
    else if (key in actions) actions[key]();
    else return false;
    return true;
  }

  /** Arrow keys move a cursor over the photo, Enter clicks there; Space turns dragging into panning. */
  cursorKey(event) {
    const { stage } = this;
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === " ") this.space = true;
    else if (event.key in steps) this.moveCursor(steps[event.key], event.shiftKey ? 1 : 10);
    else if (event.key === "Enter" && stage.cursor) this.clickCursor(event.shiftKey);
    else return false;
    return true;
  }

  moveCursor([dx, dy], step) {
    const { stage } = this;
    const [W, H] = [stage.W, stage.H];
    stage.cursor ??= [W / 2, H / 2];
    const far = (step * W) / stage.w / Math.min(stage.scale, 1);
    const [x, y] = stage.cursor;
    stage.cursor = [Math.min(W - 0.5, Math.max(0.5, x + dx * far)), Math.min(H - 0.5, Math.max(0.5, y + dy * far))];
    if (this.corner) stage.drag = { tool: "box", box: [...this.corner, ...stage.cursor] };
    const [sx, sy] = stage.toStage(...stage.cursor);
    stage.pan(Math.min(0, stage.width - 20 - sx) + Math.max(0, 20 - sx), Math.min(0, stage.height - 20 - sy) + Math.max(0, 20 - sy));
    this.aim();
    this.spoken.textContent = `${Math.round(stage.cursor[0])}, ${Math.round(stage.cursor[1])}${stage.label ? `: ${stage.label}` : ""}`;
    stage.draw();
  }

  clickCursor(shift) {
    const { stage } = this;
    const tool = this.model.get("tool");
    const place = stage.cursor;
    if (tool === "box" && !this.corner) {
      this.corner = place;
      this.say("First corner; move to the other one and press Enter");
    } else if (tool === "box") {
      const box = [...this.corner, ...place];
      this.cancel();
      this.send("box", boxOf(box));
    } else if (tool === "brush" || tool === "eraser") {
      this.send("stroke", { points: [place], radius: this.model.get("brush"), erase: (tool === "eraser") !== shift });
    } else this.click(tool, place, shift, false);
  }
}

const boxOf = ([x0, y0, x1, y1]) => ({ x0, y0, x1, y1 });

export default {
  render({ model, el }) {
    const picker = new Picker(model, el);
    return () => picker.stop();
  },
};
