// The canvas: photo, masks, points, box and cursor, with zoom and pan.
//
// Three kinds of coordinates: "photo" (pixels of the full photo, what Python means), "scaled"
// (pixels of the picture and the masks that were sent), "stage" (CSS pixels of the canvas).

const TALLEST = 560; // stage pixels

/** The canvas: photo, masks, points, box and cursor, with zoom and pan. */
class Stage {
  constructor(model, canvas) {
    Object.assign(this, { model, canvas, context: canvas.getContext("2d") });
    [this.W, this.H, this.w, this.h] = model.get("_size");
    this.size = Math.max(1, Math.round(Math.max(this.w, this.h) / 800)); // of lines, scaled pixels
    Object.assign(this, { zoom: 1, x: 0, y: 0, photo: null, choices: [], objects: [], active: 0 });
    Object.assign(this, { hover: null, drag: null, cursor: null, pointer: null, live: null, label: "" });
    this.drawn = []; // to be called after the next frame
    this.cache = new WeakMap(); // bytes of runs -> what was made of them
    const blob = new Blob([model.get("_photo")], { type: "image/jpeg" });
    createImageBitmap(blob).then((photo) => { this.photo = photo; this.draw(); });
  }

  get scale() { return this.fit * this.zoom; } // stage pixels a scaled pixel
  toPhoto(x, y) {
    return [((x - this.x) / this.scale) * (this.W / this.w), ((y - this.y) / this.scale) * (this.H / this.h)];
  }
  toStage(x, y) {
    return [((x * this.w) / this.W) * this.scale + this.x, ((y * this.h) / this.H) * this.scale + this.y];
  }

  resize(width) {
    if (width < 1) return;
    this.fit = Math.min(width / this.w, TALLEST / this.h);
    [this.width, this.height] = [width, Math.round(this.h * this.fit)];
    const dense = window.devicePixelRatio || 1;
    [this.canvas.width, this.canvas.height] = [Math.round(this.width * dense), Math.round(this.height * dense)];
    this.canvas.style.height = `${this.height}px`;
    this.zoomBy(1, 0, 0);
  }

  zoomBy(factor, x = this.width / 2, y = this.height / 2) {
    const before = this.scale;
    this.zoom = Math.min(40, Math.max(1, this.zoom * factor));
    const ratio = this.scale / before;
    [this.x, this.y] = [x - (x - this.x) * ratio, y - (y - this.y) * ratio];
    this.pan(0, 0);
  }

  pan(dx, dy) {
    const limit = (at, room, length) =>
      length <= room ? (room - length) / 2 : Math.min(0, Math.max(room - length, at));
    this.x = limit(this.x + dx, this.width, this.w * this.scale);
    this.y = limit(this.y + dy, this.height, this.h * this.scale);
    this.draw();
  }

  shape(item) {
    return this.kept(item, "shape", () => decode(item.runs, this.w));
  }
  overlay(item, color, pattern) {
    const shape = this.shape(item);
    return shape && this.kept(item, color + pattern, () => overlay(shape, color, pattern, this.size));
  }
  kept(item, key, make) {
    if (!this.cache.has(item.runs)) this.cache.set(item.runs, {});
    const made = this.cache.get(item.runs);
    return key in made ? made[key] : (made[key] = make());
  }

  /** Indices of the choices below a place of the photo, small ones first. */
  below(x, y) {
    const [u, v] = [Math.floor((x * this.w) / this.W), Math.floor((y * this.h) / this.H)];
    return this.choices.map((_, i) => i).filter((i) => inside(this.shape(this.choices[i]), u, v))
      .sort((a, b) => this.choices[a].pixels - this.choices[b].pixels);
  }

  /** Show at once what Python will answer when a choice is taken. */
  foresee(candidate, isNew) {
    const owner = this.objects.findIndex((object) => object.choice === candidate);
    const object = this.objects[this.active];
    if (owner >= 0) this.active = owner;
    else if (!isNew || !object.pixels) {
      const taken = { ...object, ...this.choices[candidate], choice: candidate, points: [], box: null };
      this.objects = this.objects.map((each, i) => (i === this.active ? taken : each));
    }
    this.draw();
  }

  /** Begin to paint at once on a copy of the active mask, until Python answers. */
  startLive() {
    if (this.live) return;
    this.live = { fill: blank(this.w, this.h), line: blank(this.w, this.h) };
    const object = this.objects[this.active];
    const made = object && this.overlay(object, object.color, this.active);
    if (made) for (const part of ["fill", "line"]) {
      this.live[part].getContext("2d").drawImage(made[part], made.x, made.y);
    }
  }

  paintLive([x0, y0], [x1, y1], radius, erase) {
    const share = this.w / this.W;
    for (const part of erase ? ["fill", "line"] : ["fill"]) {
      const context = this.live[part].getContext("2d");
      context.globalCompositeOperation = erase ? "destination-out" : "source-over";
      Object.assign(context, { lineCap: "round", lineWidth: 2 * radius * share });
      context.strokeStyle = this.objects[this.active].color;
      context.beginPath();
      context.moveTo(x0 * share, y0 * share);
      context.lineTo(x1 * share + 1e-3, y1 * share);
      context.stroke();
    }
    this.draw();
  }

  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      if (this.width) this.paint();
      for (const tell of this.drawn.splice(0)) tell();
    });
  }

  paint() {
    const { context: c, scale } = this;
    const dense = this.canvas.width / this.width;
    c.setTransform(dense, 0, 0, dense, 0, 0);
    c.clearRect(0, 0, this.width, this.height);
    c.imageSmoothingEnabled = scale < 3;
    c.setTransform(dense * scale, 0, 0, dense * scale, dense * this.x, dense * this.y);
    if (this.photo) c.drawImage(this.photo, 0, 0, this.w, this.h);
    this.paintMasks(c);
    c.setTransform(dense, 0, 0, dense, 0, 0);
    const object = this.objects[this.active];
    if (object) this.paintPrompt(c, object);
    this.paintNumbers(c);
    this.paintPointer(c);
  }

  paintMasks(c) {
    const opacity = this.model.get("opacity");
    if (this.model.get("tool") === "select") {
      c.globalAlpha = 0.4;
      for (const choice of this.choices) this.lay(c, this.overlay(choice, "#ffffff", null), ["line"]);
    }
    const order = this.objects.map((_, i) => i).sort((a, b) => this.objects[b].pixels - this.objects[a].pixels);
    for (const i of order) {
      const live = i === this.active && this.live && { x: 0, y: 0, ...this.live };
      const made = live || this.overlay(this.objects[i], this.objects[i].color, i);
      c.globalAlpha = opacity;
      this.lay(c, made, ["fill"]);
      c.globalAlpha = i === this.active ? 1 : 0.7;
      this.lay(c, made, ["line"]);
    }
    if (this.hover !== null && this.choices[this.hover]) {
      const made = this.overlay(this.choices[this.hover], "#ffffff", null);
      c.globalAlpha = 0.4;
      this.lay(c, made, ["fill"]);
      c.globalAlpha = 1;
      this.lay(c, made, ["line"]);
    }
    c.globalAlpha = 1;
  }

  lay(c, made, parts) {
    if (made) for (const part of parts) c.drawImage(made[part], made.x, made.y);
  }

  paintPrompt(c, object) {
    const box = this.drag?.box ?? object.box;
    if (box) {
      const [x0, y0] = this.toStage(box[0], box[1]);
      const [x1, y1] = this.toStage(box[2], box[3]);
      twice(c, 3, 1.5, () => c.strokeRect(x0, y0, x1 - x0, y1 - y0), [6, 4]);
    }
    for (const [px, py, positive] of object.points) {
      const [x, y] = this.toStage(px, py);
      c.beginPath();
      c.arc(x, y, 8, 0, 2 * Math.PI);
      Object.assign(c, { fillStyle: positive ? "#ffffff" : "#181818" });
      c.fill();
      twice(c, 3, 1, () => c.stroke());
      c.strokeStyle = positive ? "#181818" : "#ffffff";
      c.lineWidth = 2;
      c.beginPath();
      c.moveTo(x - 4, y);
      c.lineTo(x + 4, y);
      if (positive) { c.moveTo(x, y - 4); c.lineTo(x, y + 4); }
      c.stroke();
    }
  }

  /** Write each object's number on it, the active one's first, none over another. */
  paintNumbers(c) {
    const taken = [];
    const order = this.objects.map((_, i) => i).filter((i) => this.objects[i].place);
    for (const i of order.sort((a, b) => (b === this.active) - (a === this.active))) {
      const [u, v] = this.objects[i].place;
      const at = [u * this.scale + this.x, v * this.scale + this.y];
      while (taken.some(([x, y]) => Math.abs(x - at[0]) < 26 && Math.abs(y - at[1]) < 24)) at[0] += 26;
      taken.push(at);
      this.paintNumber(c, this.objects[i], i, at);
    }
  }

  paintNumber(c, object, number, [x, y]) {
    const active = number === this.active;
    c.font = `${active ? "bold " : ""}13px sans-serif`;
    Object.assign(c, { textAlign: "center", textBaseline: "middle", lineWidth: active ? 3 : 2 });
    const half = Math.max(11, c.measureText(number).width / 2 + 6);
    c.beginPath();
    c.roundRect(x - half, y - 11, 2 * half, 22, 11);
    Object.assign(c, { fillStyle: "#181818", strokeStyle: object.color });
    c.fill();
    c.stroke();
    c.fillStyle = "#ffffff";
    c.fillText(number, x, y + 1);
  }

  paintPointer(c) {
    const place = this.cursor ? this.toStage(...this.cursor) : this.pointer;
    if (!place) return;
    const [x, y] = place;
    if (["brush", "eraser"].includes(this.model.get("tool"))) {
      c.beginPath();
      c.arc(x, y, Math.max(1, ((this.model.get("brush") * this.w) / this.W) * this.scale), 0, 2 * Math.PI);
      twice(c, 3, 1, () => c.stroke(), this.model.get("tool") === "eraser" ? [4, 3] : []);
    }
    if (this.cursor) {
      c.beginPath();
      for (const [i, j] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        c.moveTo(x + 4 * i, y + 4 * j);
        c.lineTo(x + 16 * i, y + 16 * j);
      }
      twice(c, 4, 2, () => c.stroke());
    }
    if (this.label) {
      c.font = "13px sans-serif";
      const wide = c.measureText(this.label).width + 14;
      const left = Math.max(2, Math.min(x + 14, this.width - wide - 2));
      const top = y > 40 ? y - 34 : y + 18;
      c.beginPath();
      c.roundRect(left, top, wide, 24, 5);
      c.fillStyle = "rgba(24, 24, 24, 0.88)";
      c.fill();
      Object.assign(c, { fillStyle: "#ffffff", textAlign: "left", textBaseline: "middle" });
      c.fillText(this.label, left + 7, top + 13);
    }
  }
}

/** Stroke in white on black, which shows on every photo. */
function twice(c, outer, inner, stroke, dash = []) {
  for (const [width, color] of [[outer, "#181818"], [inner, "#ffffff"]]) {
    Object.assign(c, { lineWidth: width, strokeStyle: color });
    c.setLineDash(color === "#ffffff" ? dash : []);
    stroke();
  }
  c.setLineDash([]);
}
