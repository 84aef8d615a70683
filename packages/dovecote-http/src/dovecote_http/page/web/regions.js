// The pool as regions of the map: rows of frames in one state, each with words for it.
//
//   leased + cached + free = frames. Of leased and cached, runs are what agents hold; the rest is of
//   requests without an agent. Which frames a lease holds is not told, only how many: they are taken
//   to be the chains of agents that are busy, then those of nobody.

import { bytes, plural } from "./dom.js";

export const KINDS = {
  leased: "leased",
  shared: "shared",
  own: "own",
  nobody: "without agent",
  promised: "promised",
  free: "free",
};

export function regionsOf({ pool, agents, runs }) {
  let leased = pool.leased;
  let left = pool.leased + pool.cached;
  const regions = [];
  for (const run of runs) {
    const owners = run.owners.map((place) => agents[place]);
    const blocks = Math.min(run.blocks, left);
    const busy = owners.some((agent) => agent.busy) ? Math.min(leased, blocks) : 0;
    const names = owners.map((agent) => agent.id);
    const pinned = owners.some((agent) => agent.pinned);
    const resting = owners.length > 1 ? "shared" : "own";
    left -= blocks;
    leased -= busy;
    push(regions, { kind: "leased", frames: busy, names, pinned });
    push(regions, { kind: resting, frames: blocks - busy, names, pinned });
  }
  leased = Math.min(leased, left);
  push(regions, { kind: "leased", frames: leased, names: [], pinned: false });
  push(regions, { kind: "nobody", frames: left - leased, names: [], pinned: false });
  const promised = Math.min(pool.promised, pool.free);
  push(regions, { kind: "promised", frames: promised, names: [], pinned: false });
  push(regions, { kind: "free", frames: pool.free - promised, names: [], pinned: false });
  return regions;
}

function push(regions, region) {
  if (region.frames > 0) regions.push(region);
}

export function totals(regions) {
  const sums = Object.fromEntries(Object.keys(KINDS).map((kind) => [kind, 0]));
  for (const region of regions) sums[region.kind] += region.frames;
  return sums;
}

// One region in a sentence, for the line below the map and for screen readers.
export function told(region, frameBytes) {
  const size = `${plural(region.frames, "block")}, ${bytes(region.frames * frameBytes)}`;
  const pinned = region.pinned ? ", pinned" : "";
  const names = listed(region.names);
  switch (region.kind) {
    case "leased": return `${size}: leased by running requests${names && `, ${names}`}${pinned}`;
    case "shared": return `${size}: shared by ${names}${pinned}`;
    case "own": return `${size}: ${names}’s alone${pinned}`;
    case "nobody": return `${size}: cached, of requests without an agent`;
    case "promised": return `${size}: promised to running requests, not yet filled`;
    default: return `${size}: free`;
  }
}

function listed(names) {
  if (names.length <= 4) return names.join(", ");
  return `${names.slice(0, 3).join(", ")} and ${names.length - 3} more`;
}
