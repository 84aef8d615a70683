// The table of agents: what each holds and how much of it is shared, with what can be done.
// Rows are kept and filled anew, so that focus stays where it is while numbers change.

import { agentPath, call } from "./api.js";
import { ask } from "./dialog.js";
import { ago, bytes, count, find, make, plural } from "./dom.js";

export class AgentTable {
  // lit(name or null): the row that is looked at. chat(name), fork(name): the chat's doing.
  constructor({ lit, chat, fork, fault }) {
    Object.assign(this, { lit, chat, fork, fault });
    this.rows = new Map();
    this.body = make("tbody");
    find("agents-table").append(make("table", { "aria-labelledby": "agents-title" }, head(), this.body));
  }

  show({ agents, agents_total: total, time }) {
    find("agents-table").hidden = agents.length === 0;
    find("agents-empty").hidden = agents.length > 0;
    const shown = agents.length < total ? `, the last ${count(agents.length)} shown` : "";
    find("agents-sum").textContent = total ? `${plural(total, "agent")}${shown}` : "";
    const most = Math.max(1, ...agents.map((agent) => agent.own_bytes + agent.shared_bytes));
    const names = new Set(agents.map((agent) => agent.id));
    for (const [name, row] of this.rows) if (!names.has(name)) this.drop(name, row);
    for (const agent of agents) this.row(agent.id).fill(agent, time, most);
    this.order(agents);
  }

  light(names) {
    for (const [name, row] of this.rows) row.element.classList.toggle("lit", names.includes(name));
  }

  order(agents) {
    // A row that holds the focus would lose it if it were moved: others move around it.
    agents.forEach((agent, place) => {
      const { element } = this.rows.get(agent.id);
      const there = this.body.children[place];
      if (there !== element && !element.contains(document.activeElement)) this.body.insertBefore(element, there ?? null);
    });
  }

  drop(name, row) {
    row.element.remove();
    this.rows.delete(name);
  }

  row(name) {
    if (!this.rows.has(name)) this.rows.set(name, new Row(name, this));
    return this.rows.get(name);
  }

  async pin(name, pinned) {
    await this.change(() => call(agentPath(name), { method: "PATCH", body: { pinned } }));
  }

  async remove(name) {
    const text = "Its name goes, and the blocks that no other agent or running request needs.";
    const sure = await ask({ title: `Delete ${name}?`, text, ok: "Delete" });
    if (sure !== null) await this.change(() => call(agentPath(name), { method: "DELETE" }));
  }

  async change(doing) {
    try {
      await doing();
    } catch (error) {
      this.fault(error);
    }
  }
}

class Row {
  constructor(name, table) {
    const { lit, chat, fork } = table;
    const cell = (kind = "") => make("td", { class: kind });
    this.name = make("td", { class: "name", role: "rowheader" });
    this.tokens = cell("number");
    this.size = cell("number");
    this.meter = cell("optional");
    this.used = cell("optional");
    this.pin = make("button", { type: "button", class: "quiet", onclick: () => table.pin(name, !this.pinned) });
    const button = (word, doing) =>
      make("button", { type: "button", class: "quiet", "aria-label": `${word} ${name}`, onclick: doing }, word);
    const buttons = make("td", {}, button("Chat", () => chat(name)), button("Fork", () => fork(name)), this.pin,
      button("Delete", () => table.remove(name)));
    this.element = make("tr", {
      onpointerenter: () => lit(name), onpointerleave: () => lit(null), onfocusin: () => lit(name), onfocusout: () => lit(null),
    }, this.name, this.tokens, this.size, this.meter, this.used, buttons);
  }

  fill(agent, now, most) {
    this.pinned = agent.pinned;
    const size = agent.own_bytes + agent.shared_bytes;
    this.name.title = agent.forked_from ? `${agent.id}, forked from ${agent.forked_from}` : agent.id;
    this.name.replaceChildren(make("b", {}, agent.id), ...tags(agent).flatMap((tag) => [" ", tag]));
    const lost = agent.cached_tokens < agent.tokens ? make("small", {}, ` of ${count(agent.tokens)}`) : null;
    this.tokens.replaceChildren(count(agent.cached_tokens), ...(lost ? [lost] : []));
    this.size.textContent = bytes(size);
    this.meter.replaceChildren(meter(agent, most));
    this.used.textContent = agent.busy ? "now" : ago(agent.last_used, now);
    this.pin.textContent = agent.pinned ? "Unpin" : "Pin";
    this.pin.setAttribute("aria-label", `${this.pin.textContent} ${agent.id}`);
  }
}

function head() {
  const column = (word, kind = "") => make("th", { scope: "col", class: kind }, word);
  return make("thead", {}, make("tr", {}, column("Name"), column("Tokens cached", "number"), column("In the pool", "number"),
    column("Own, shared", "optional"), column("Last turn", "optional"),
    make("th", { scope: "col" }, make("span", { class: "hidden" }, "Actions"))));
}

function tags(agent) {
  const said = [];
  if (agent.busy) said.push(make("span", { class: "tag busy" }, "busy"));
  if (agent.pinned) said.push(make("span", { class: "tag" }, "pinned"));
  if (agent.forked_from) said.push(make("span", { class: "tag" }, "fork"));
  return said;
}

function meter(agent, most) {
  const words = `${bytes(agent.own_bytes)} own, ${bytes(agent.shared_bytes)} shared`;
  const part = (kind, size) => {
    const mark = make("i", { class: kind });
    mark.style.width = `${(100 * size) / most}%`;
    return mark;
  };
  return make("span", { class: "meter", role: "img", "aria-label": words, title: words },
    part("shared-part", agent.shared_bytes), part("own-part", agent.own_bytes));
}
