// Toolbar, list of objects, lines of text.

const TOOLS = [
  ["select", "Select", "v", "Click a mask to take it, again for the one below; Shift adds an object"],
  ["point", "Point +", "p", "Click a place on the object (right-click: beside it)"],
  ["avoid", "Point −", "m", "Click a place that does not belong to the object"],
  ["box", "Box", "r", "Drag a box around the object"],
  ["brush", "Brush", "b", "Paint pixels that belong to the object"],
  ["eraser", "Eraser", "e", "Erase pixels that do not belong to the object"],
  ["move", "Move", "h", "Drag the photo; the wheel zooms"],
];
const HELP = [
  ["V", "select"], ["P", "point on"], ["M", "point beside"], ["R", "box"], ["B", "brush"], ["E", "eraser"],
  ["H", "move"], ["[ ]", "brush size"], ["+ −", "zoom"], ["F", "fit"], ["Z", "undo"], ["Y", "redo"], ["C", "clear"],
  ["N", "new object"], ["0–9", "choose object"], ["Delete", "remove object"], ["Esc", "stop"],
  ["arrows, Enter", "move and click without a mouse"],
];

/** Make an element; attributes that start with "on" are listeners. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  // JupyterLab leaves keys alone only where the focused element itself says so.
  if (["button", "canvas", "input", "summary"].includes(tag)) element.dataset.lmSuppressShortcuts = "true";
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

const count = (n) => n.toLocaleString("en-US");

/** What is on the page, filled from what Python says; `Gestures` adds what a person does. */
class Panel {
  constructor(model, el) {
    Object.assign(this, { model, el, waiting: new Map(), next: Math.floor(Math.random() * 2 ** 40) });
    this.unique = `s3-${this.next}`;
    this.canvas = make("canvas", {
      tabindex: 0, role: "application", "aria-roledescription": "photo with masks",
      "aria-describedby": `${this.unique}-help`,
    });
    this.stage = new Stage(model, this.canvas);
    const [W, H] = model.get("_size");
    this.canvas.setAttribute("aria-label", `Photo, ${W} by ${H} pixels; arrow keys move a cursor, Enter clicks`);
    this.root = make("div", { class: "s3-picker", role: "group", "aria-label": "Mask picker" });
    this.status = make("div", { class: "s3-status", role: "status", "aria-live": "polite" });
    this.spoken = make("div", { class: "s3-hidden", "aria-live": "assertive" });
    this.counter = make("output", { class: "s3-counter", "aria-label": "pixels in the active mask" });
    this.list = make("div", { class: "s3-objects", role: "radiogroup", "aria-label": "Objects" });
    this.choices = make("details", { class: "s3-choices" });
    this.root.append(
      this.toolbar(),
      make("div", { class: "s3-main" }, make("div", { class: "s3-stage" }, this.canvas), this.side()),
      make("div", { class: "s3-line" }, this.counter, this.status), this.spoken, this.help(),
    );
    el.append(this.root);
  }

  // ----- what is on the page

  button(text, title, key, action, more = {}) {
    const keys = key ? { "aria-keyshortcuts": key.toUpperCase() } : {};
    const hint = key ? `${title} (${key.toUpperCase()})` : title;
    return make("button", { type: "button", title: hint, onclick: action, ...keys, ...more }, text);
  }

  toolbar() {
    const can = this.model.get("_can");
    this.tools = new Map(TOOLS.map(([tool, text, key, title]) =>
      [tool, this.button(text, title, key, () => this.choose(tool), { "aria-pressed": "false", "data-tool": tool })]));
    this.undo = this.button("Undo", "Take the last step back", "z", () => this.send("undo"));
    this.redo = this.button("Redo", "Do it again", "y", () => this.send("redo"));
    this.zoomed = make("span", { class: "s3-zoom" });
    this.size = this.slider("Brush", "brush", 0, 100, 1, (v) => this.radiusOf(v), (r) => this.stepOf(r));
    this.opacity = this.slider("Opacity", "opacity", 0, 1, 0.05, Number, Number);
    const group = (label, ...items) => make("div", { class: "s3-group", role: "group", "aria-label": label }, ...items);
    const bar = make("div", { class: "s3-bar", role: "toolbar", "aria-label": "Tools" },
      group("Tools", ...this.tools.values()),
      group("Steps", this.undo, this.redo, this.button("Clear", "Empty the active object", "c", () => this.send("clear"))),
      group("Zoom", this.button("−", "Zoom out", "-", () => this.zoom(0.8)), this.zoomed,
        this.button("+", "Zoom in", "+", () => this.zoom(1.25)), this.button("Fit", "Show the whole photo", "f", () => this.zoom(0))));
    const more = [];
    if (can.segment) more.push(this.button("Suggest", "Look for objects to choose among", "", () => this.send("suggest")));
    if (can.save) more.push(this.button("Save", "Save photo and masks as an example", "", () => this.send("save")));
    if (more.length) bar.append(group("Whole photo", ...more));
    bar.append(group("Looks", this.opacity, this.size));
    return bar;
  }

  slider(text, trait, min, max, step, read, write) {
    const input = make("input", { type: "range", min, max, step, "aria-label": text, title: text, oninput: () => {
      this.model.set(trait, read(Number(input.value)));
      this.model.save_changes();
    } });
    input.show = () => {
      input.value = write(this.model.get(trait));
      if (trait === "brush") input.setAttribute("aria-valuetext", `${Math.round(this.model.get(trait))} pixels`);
    };
    const label = make("label", { class: "s3-slider", "data-trait": trait }, text, input);
    label.show = input.show;
    return label;
  }
  // The slider of the brush is logarithmic: 1 pixel to a quarter of the photo.
  get widest() { return Math.max(8, Math.max(this.stage.W, this.stage.H) / 4); }
  radiusOf(step) { return this.widest ** (step / 100); }
  stepOf(radius) { return (100 * Math.log(Math.max(1, radius))) / Math.log(this.widest); }

  side() {
    this.name = make("input", { type: "text", maxlength: 80, "aria-label": "Name of the active object", placeholder: "name",
      onchange: () => this.send("rename", { number: this.stage.active, name: this.name.value }) });
    return make("div", { class: "s3-side" }, this.list, this.name,
      make("div", { class: "s3-group" },
        this.button("New object", "Begin another object", "n", () => this.send("add")),
        this.button("Remove", "Remove the active object", "Delete", () => this.send("remove", { number: this.stage.active }))),
      this.choices);
  }

  help() {
    const keys = HELP.flatMap(([key, text], i) => [i ? " · " : "", make("kbd", {}, key), ` ${text}`]);
    return make("p", { class: "s3-help", id: `${this.unique}-help` }, "Keys: ", ...keys);
  }

  /** Show what Python said. */
  show() {
    const view = this.model.get("_view");
    const { stage, root } = this;
    if (!view.objects) return;
    // A mask that was taken is the same as among the choices, where it may be drawn already.
    const objects = view.objects.map((o) => (o.choice === null ? o : { ...o, runs: stage.choices[o.choice].runs }));
    Object.assign(stage, { objects, active: view.active });
    const sent = this.waiting.get(view.done);
    this.waiting.delete(view.done);
    if (!this.waiting.size && !stage.drag?.stroke) stage.live = null;
    root.setAttribute("aria-busy", String(this.waiting.size > 0));
    this.status.textContent = view.status;
    this.status.classList.toggle("s3-failed", view.failed);
    const object = view.objects[view.active];
    const share = (100 * object.pixels) / (stage.W * stage.H);
    this.counter.textContent = `${count(object.pixels)} pixels · ${share.toFixed(1)} %`;
    if (document.activeElement !== this.name) this.name.value = object.named ? object.name : "";
    this.name.placeholder = `name of object ${view.active}`;
    this.undo.disabled = !view.undo;
    this.redo.disabled = !view.redo;
    this.showObjects(view);
    this.aim();
    stage.drawn.push(() => {
      if (sent) root.dataset.milliseconds = (performance.now() - sent).toFixed(1);
      if (sent || !root.dataset.done) root.dataset.done = (Number(root.dataset.done) || 0) + 1;
    });
    stage.draw();
  }

  showObjects(view) {
    const focused = this.list.contains(document.activeElement);
    this.list.replaceChildren(...view.objects.map((object, number) => {
      const radio = make("input", { type: "radio", name: this.unique, value: number,
        onchange: () => this.send("select", { number }) });
      radio.checked = number === view.active;
      const text = object.pixels ? `${count(object.pixels)} pixels` : "empty";
      return make("label", {}, radio, swatch(object.color, number), make("b", {}, String(number)),
        make("span", { class: "s3-name" }, object.name), make("small", {}, text));
    }));
    if (focused) this.list.querySelector("input:checked")?.focus();
  }

  showChoices() {
    this.stage.choices = this.model.get("_choices");
    const { choices } = this.stage;
    const open = this.choices.open;
    const point = (i) => () => { this.stage.hover = i; this.stage.draw(); };
    this.choices.hidden = !choices.length;
    this.choices.replaceChildren(
      make("summary", {}, `${choices.length} mask${choices.length === 1 ? "" : "s"} to choose among`),
      ...choices.map((choice, i) => make("button", {
        type: "button", title: `${choice.name}, ${count(choice.pixels)} pixels`, "data-choice": i,
        onclick: (event) => this.send("take", { candidate: i, new: event.shiftKey }),
        onfocus: point(i), onmouseenter: point(i), onblur: point(null), onmouseleave: point(null),
      }, choice.name)));
    this.choices.open = open;
    this.stage.draw();
  }

  /** Show tool, sizes and zoom. */
  showTraits() {
    const tool = this.model.get("tool");
    for (const [name, button] of this.tools) button.setAttribute("aria-pressed", String(name === tool));
    this.root.dataset.tool = tool;
    if (["point", "avoid", "box"].includes(tool)) this.prepare();
    for (const slider of [this.size, this.opacity]) slider.show();
    this.zoomed.textContent = `${Math.round(this.stage.zoom * 100)} %`;
    this.aim();
    this.stage.draw();
  }
}

/** A small square with an object's color and pattern. */
function swatch(color, number) {
  const side = 22;
  const shape = { x: 0, y: 0, w: side - 2, h: side - 2, bits: new Uint8Array((side - 2) ** 2).fill(1) };
  const made = overlay(shape, color, number, 1, 7);
  made.fill.getContext("2d").drawImage(made.line, 0, 0);
  made.fill.setAttribute("aria-hidden", "true");
  return made.fill;
}
