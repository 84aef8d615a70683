// The map: a wall of pigeonholes, each for the same number of frames, region after region.
// Pointer and arrow keys choose a region; the agents' table lights up regions of one agent. To those
// who hear the page it is a slider from region to region, so that screen readers pass the keys on.

import { find, make, bytes, count, plural } from "./dom.js";
import { KINDS, regionsOf, told, totals } from "./regions.js";

const SIZES = [17, 15, 13, 12, 11, 10, 9, 8]; // width of a hole with its margin, px
const TALL = 1.18; // its height for its width
const GAP = 2;
const MOST_HEIGHT = 236;

export class PoolMap {
  constructor(light) {
    this.canvas = find("map");
    this.light = light; // told the names of the region that is looked at
    this.regions = [];
    this.holes = []; // region of each hole
    this.chosen = -1;
    this.lit = null;
    new ResizeObserver(() => this.canvas.clientWidth !== this.width && this.draw()).observe(this.canvas);
    this.canvas.addEventListener("pointermove", (event) => this.choose(this.at(event)));
    this.canvas.addEventListener("pointerleave", () => this.choose(-1));
    this.canvas.addEventListener("blur", () => this.choose(-1));
    this.canvas.addEventListener("keydown", (event) => this.step(event));
  }

  show(overview) {
    this.pool = overview.pool;
    this.regions = regionsOf(overview);
    this.chosen = Math.min(this.chosen, this.regions.length - 1);
    this.describe(overview);
    this.draw();
    this.say();
  }

  // Lights the regions of one agent; null: none.
  lightUp(name) {
    if (this.lit === name) return;
    this.lit = name;
    this.draw();
  }

  describe({ pool }) {
    const sums = totals(this.regions);
    const used = pool.leased + pool.cached;
    const full = pool.frames ? Math.round((100 * used) / pool.frames) : 0;
    find("pool-sum").textContent =
      `${count(used)} of ${plural(pool.frames, "block")} in use (${full} %), ${bytes(pool.file_bytes)}`;
    const items = Object.entries(KINDS).map(([kind, word]) => item(kind, word, sums[kind]));
    if (pool.pinned) items.push(item("pinned", "of these pinned", pool.pinned));
    find("legend").replaceChildren(...items);
    const words = Object.entries(KINDS).map(([kind, word]) => `${count(sums[kind])} ${word}`);
    this.canvas.setAttribute("aria-label", `Map of the pool, in blocks: ${words.join(", ")}; ${count(pool.pinned)} pinned.`);
  }

  draw() {
    const { canvas } = this;
    const scale = window.devicePixelRatio || 1;
    const width = canvas.clientWidth;
    if (!width || !this.pool) return;
    this.width = width;
    this.lay(width);
    const rows = Math.ceil(this.holes.length / this.columns);
    const height = rows * this.down;
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    const colours = coloursOf(canvas);
    this.holes.forEach((place, hole) => this.drawHole(pen, colours, hole, this.regions[place], place));
  }

  // Chooses the largest holes that fit, one a frame if that can be, and gives every region its own.
  // Where a hole stands for several frames, a small region still has one: nothing goes unseen.
  lay(width) {
    const need = (per) => this.regions.reduce((sum, { frames }) => sum + Math.ceil(frames / per), 0);
    const fits = (per) => SIZES.find((size) => {
      const columns = Math.floor((width + GAP) / size);
      return Math.ceil(need(per) / columns) * Math.round(size * TALL) <= MOST_HEIGHT;
    });
    let per = 1;
    while (!fits(per) && per < this.pool.frames) per = Math.ceil(per * 1.1);
    this.per = per;
    this.across = fits(per) ?? SIZES.at(-1);
    this.down = Math.round(this.across * TALL);
    this.columns = Math.floor((width + GAP) / this.across);
    this.holes = this.regions.flatMap(({ frames }, place) => Array(Math.ceil(frames / per)).fill(place));
  }

  drawHole(pen, colours, hole, region, place) {
    const x = (hole % this.columns) * this.across;
    const y = Math.floor(hole / this.columns) * this.down;
    const [w, h] = [this.across - GAP, this.down - GAP];
    const other = (this.lit !== null && !region.names.includes(this.lit)) ||
      (this.chosen >= 0 && place !== this.chosen);
    pen.globalAlpha = other ? 0.28 : 1;
    pen.beginPath();
    pen.roundRect(x, y, w, h, [w / 2, w / 2, 1, 1]);
    if (region.kind === "promised") {
      pen.strokeStyle = colours.promised;
      pen.lineWidth = 1.3;
      pen.stroke();
    } else {
      pen.fillStyle = colours[region.kind];
      pen.fill();
    }
    if (region.kind === "shared") {
      pen.fillStyle = colours.card;
      pen.fillRect(x + w / 2 - 0.5, y + 3, 1, h - 3);
    }
    if (region.pinned) {
      pen.fillStyle = colours.pin;
      pen.beginPath();
      pen.arc(x + w / 2, y + h / 2 + 1, w / 5, 0, 7);
      pen.fill();
    }
    pen.globalAlpha = 1;
  }

  at(event) {
    const column = Math.floor(event.offsetX / this.across);
    const hole = Math.floor(event.offsetY / this.down) * this.columns + column;
    return column < this.columns && hole < this.holes.length ? this.holes[hole] : -1;
  }

  step(event) {
    const ahead = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const last = this.regions.length - 1;
    if (event.key === "Escape") return this.choose(-1);
    if (event.key === "Home") this.choose(0);
    else if (event.key === "End") this.choose(last);
    else if (ahead) this.choose(Math.max(0, Math.min(last, this.chosen + ahead)));
    else return;
    event.preventDefault();
  }

  choose(place) {
    if (place === this.chosen) return;
    this.chosen = place;
    this.draw();
    this.say();
    this.light(this.regions[place]?.names ?? []);
  }

  say() {
    const region = this.regions[this.chosen];
    const scale = this.per > 1 ? `One pigeonhole is ${plural(this.per, "block")}.` : "One pigeonhole is one block.";
    const words = region ? told(region, this.pool.frame_bytes) : `${scale} Each block is ${bytes(this.pool.frame_bytes)}.`;
    const said = find("map-said");
    if (said.textContent !== words) said.textContent = words;
    this.canvas.setAttribute("aria-valuemax", this.regions.length);
    this.canvas.setAttribute("aria-valuenow", this.chosen + 1);
    this.canvas.setAttribute("aria-valuetext", words);
  }
}

function item(kind, word, number) {
  return make("li", {}, make("span", { class: "niche", "data-kind": kind }), make("b", {}, count(number)), word);
}

// Colours as the theme has them now: a canvas cannot read custom properties itself.
function coloursOf(canvas) {
  const probe = canvas.ownerDocument.createElement("span");
  canvas.parentNode.append(probe);
  const colours = {};
  for (const name of ["leased", "shared", "own", "nobody", "promised", "free", "pin", "card"]) {
    probe.style.color = `var(--${name})`;
    colours[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  return colours;
}
