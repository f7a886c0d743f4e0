// The map: communities by the health of their devices, open incidents above them, and the grids to walk down.
"use strict";

(async function () {
  const holder = document.getElementById("map");
  const words = holder.dataset;
  const state = document.getElementById("link-state");
  const grids = document.getElementById("grids");
  const told = document.getElementById("units-told");
  const MOST_OPEN = 100;
  const RANK = { normal: 0, urgent: 1, critical: 2 };
  const COLOURS = ["normal", "urgent", "critical"];
  const HEALTH = ["good", "idle", "poor", "bad"];

  const map = L.map(holder, { zoomControl: false, attributionControl: false, minZoom: 8, maxZoom: 18, zoomSnap: 0.5 });
  L.control.zoom({ position: "topright", zoomInTitle: words.zoomIn, zoomOutTitle: words.zoomOut }).addTo(map);
  L.control.scale({ imperial: false, position: "bottomleft" }).addTo(map);

  // Incidents lie above all else, and what one looks at from near above what lies around it.
  ["area", "spots", "units", "cases"].forEach((name, step) => {
    map.createPane(name).style.zIndex = String(name === "area" ? 420 : 600 + 10 * step);
  });

  /** A number where many lie together, in the colour of the gravest. */
  function cluster(kind) {
    return L.markerClusterGroup({
      clusterPane: kind,
      showCoverageOnHover: false,
      maxClusterRadius: kind === "cases" ? 44 : 36,
      disableClusteringAtZoom: 16,
      iconCreateFunction(group) {
        const markers = group.getAllChildMarkers();
        const rank = Math.max(...markers.map((marker) => marker.options.rank));
        const size = 28 + Math.min(16, markers.length);
        const look = kind === "cases" ? `is-${COLOURS[rank]}` : `is-spots is-${HEALTH[rank]}`;
        return L.divIcon({ html: String(markers.length), className: `cluster ${look}`, iconSize: [size, size] });
      },
    });
  }

  const spots = cluster("spots").addTo(map);
  const cases = cluster("cases").addTo(map);
  const towns = L.layerGroup().addTo(map);
  const units = L.layerGroup().addTo(map);
  const area = L.layerGroup().addTo(map);
  const known = new Map();
  const spotsById = new Map();
  let communities = [];
  let position = null;

  function line(text, look) {
    const made = document.createElement("div");
    made.textContent = text;
    if (look) made.className = look;
    return made;
  }

  function link(address, text) {
    const made = document.createElement("a");
    made.href = address;
    made.textContent = text;
    return made;
  }

  function spotIcon(one) {
    return L.divIcon({ className: `spot is-${one.health}`, html: line(one.name, "spot-name"), iconSize: [16, 16] });
  }

  function describeSpot(id) {
    const one = communities.find((other) => other.id === id);
    const sheet = document.createElement("div");
    const head = document.createElement("b");
    head.textContent = one.name;
    sheet.append(head);
    sheet.append(line(`${words.devices} ${one.devices}${one.sick ? ` · ${words.sick} ${one.sick}` : ""}`));
    if (one.silent) sheet.append(line(words.silent, "is-sick"));
    const open = one.levels.critical + one.levels.urgent + one.levels.normal;
    sheet.append(link(`/board?community=${encodeURIComponent(one.id)}`, `${words.open} ${open}`));
    return sheet;
  }

  /** A community, new or with other health. */
  function putSpot(one) {
    const old = spotsById.get(one.id);
    const rank = HEALTH.indexOf(one.health);
    if (old) {
      if (old.options.rank === rank) return;
      old.options.rank = rank;
      old.setIcon(spotIcon(one));
      spots.refreshClusters(old);
      return;
    }
    const marker = L.marker([one.lat, one.lon], {
      icon: spotIcon(one),
      title: one.name,
      alt: one.name,
      rank,
      pane: "spots",
    });
    marker.bindPopup(() => describeSpot(one.id));
    marker.on("click", () => showUnits(one.id));
    spotsById.set(one.id, marker);
    spots.addLayer(marker);
  }

  /** An open incident, new or changed; one that stands as it stood stays, with what is open of it. */
  function putCase(one) {
    const told = JSON.stringify(one);
    const old = known.get(one.id);
    if (old && old.options.told === told) return;
    const isOpen = old !== undefined && old.isPopupOpen();
    dropCase(one.id);
    const marker = L.marker([one.lat, one.lon], {
      icon: L.divIcon({ className: `pin is-${one.level}`, iconSize: [18, 18] }),
      title: `${one.level_name} ${one.title}`,
      alt: `${one.level_name} ${one.title}`,
      rank: RANK[one.level],
      told,
      pane: "cases",
    });
    marker.bindPopup(() => {
      const sheet = document.createElement("div");
      sheet.append(link(`/incidents/${one.id}`, one.title || one.number));
      sheet.append(line([...(one.simulated ? [words.simulated] : []), one.level_name, one.state, one.number].join(" · ")));
      return sheet;
    });
    known.set(one.id, marker);
    cases.addLayer(marker);
    if (isOpen) marker.openPopup();
  }

  function dropCase(id) {
    const marker = known.get(id);
    if (marker) cases.removeLayer(marker);
    known.delete(id);
  }

  /** The points around all others, in order (Andrew's monotone chain). */
  function hull(points) {
    const sorted = [...points].sort((one, other) => one[1] - other[1] || one[0] - other[0]);
    const turn = (a, b, c) => (b[1] - a[1]) * (c[0] - a[0]) - (b[0] - a[0]) * (c[1] - a[1]);
    const half = (list) => {
      const edge = [];
      list.forEach((point) => {
        while (edge.length > 1 && turn(edge[edge.length - 2], edge[edge.length - 1], point) <= 0) edge.pop();
        edge.push(point);
      });
      edge.pop();
      return edge;
    };
    return [...half(sorted), ...half(sorted.reverse())];
  }

  /** Where the towns are: an area around their communities, with their name in the middle. It is no border. */
  function nameTowns(names) {
    towns.clearLayers();
    Object.entries(names).forEach(([code, name]) => {
      const inside = communities.filter((one) => one.grids.includes(code));
      if (inside.length === 0) return;
      if (inside.length > 2) {
        towns.addLayer(L.polygon(hull(inside.map((one) => [one.lat, one.lon])), { className: "town", interactive: false }));
      }
      const lat = inside.reduce((sum, one) => sum + one.lat, 0) / inside.length;
      const lon = inside.reduce((sum, one) => sum + one.lon, 0) / inside.length;
      towns.addLayer(L.marker([lat, lon], {
        icon: L.divIcon({ className: "town-name", html: line(name), iconSize: [0, 0] }),
        interactive: false,
        keyboard: false,
      }));
    });
  }

  function show(points) {
    if (points.length === 0) return;
    map.fitBounds(L.latLngBounds(points).pad(0.06), { maxZoom: 16 });
  }

  const pointsOf = (inside) => inside.map((one) => [one.lat, one.lon]);

  /** An area around what lies in the grid that was chosen. Its true borders nobody has told us. */
  function outline(points) {
    area.clearLayers();
    const look = { className: "grid-area", interactive: false, pane: "area" };
    if (points.length > 2) area.addLayer(L.polygon(hull(points), look));
    else points.forEach((point) => area.addLayer(L.circle(point, { ...look, radius: 120 })));
  }

  async function read() {
    const opened = [...grids.querySelectorAll("[data-lazy]")].map((node) => node.dataset.grid);
    const query = opened.length ? `?open=${opened.slice(0, MOST_OPEN).join(",")}` : "";
    const answer = await fetch(`/map/data${query}`, { headers: { "X-Follows": "1" } });
    if (!answer.ok) throw new Error(String(answer.status));
    return answer.json();
  }

  function take(data) {
    communities = data.communities;
    const there = new Set(communities.map((one) => one.id));
    [...spotsById].filter(([id]) => !there.has(id)).forEach(([id, marker]) => {
      spots.removeLayer(marker);
      spotsById.delete(id);
    });
    communities.forEach(putSpot);
    const open = new Set(data.cases.map((one) => one.id));
    [...known.keys()].filter((id) => !open.has(id)).forEach(dropCase);
    data.cases.forEach(putCase);
    nameTowns(data.towns);
    renumber(data);
    position = data.position;
  }

  /** The numbers of the list as they are now; nothing else of it moves. */
  function renumber(data) {
    const found = new Map(communities.map((one) => [one.id, { ...one.levels, ...one, silent: one.silent ? 1 : 0 }]));
    grids.querySelectorAll(".grid-node").forEach((node) => {
      const now = node.dataset.community ? found.get(node.dataset.community) : data.nodes[node.dataset.grid];
      if (now === undefined) return;
      node.querySelectorAll("[data-n]").forEach((part) => {
        const number = now[part.dataset.n];
        const shown = part.querySelector(".n");
        if (shown !== null && shown.textContent !== String(number)) shown.textContent = String(number);
        part.hidden = !number && !(part.dataset.n === "devices" && node.dataset.community);
      });
      const dot = node.querySelector(".health");
      if (dot !== null) dot.className = `health is-${now.health}`;
    });
  }

  // --- devices, from near ---------------------------------------------------------------------------------------------

  const MOST_UNITS = 30;
  let unitsOf = "";

  function describeUnits(title, devices) {
    const sheet = document.createElement("div");
    const head = document.createElement("b");
    head.textContent = `${title} · ${words.devices} ${devices.length}`;
    sheet.append(head);
    const rows = [...devices].sort((one, other) => HEALTH.indexOf(other.health) - HEALTH.indexOf(one.health));
    rows.slice(0, MOST_UNITS).forEach((one) => {
      const row = line("", "unit-row");
      const dot = document.createElement("span");
      dot.className = `unit is-${one.health}`;
      const text = one.why ? `${one.name} · ${one.why}` : one.name;
      row.append(dot, link(`/devices/${encodeURIComponent(unitsOf)}/${encodeURIComponent(one.id)}`, text));
      sheet.append(row);
    });
    if (rows.length > MOST_UNITS) {
      const rest = `${words.more} ${rows.length - MOST_UNITS}`;
      sheet.append(link(`/devices?view=all&community=${encodeURIComponent(unitsOf)}`, rest));
    }
    return sheet;
  }

  /** The devices of a community where they are: what lies in one point is one mark, as the worst of it is. */
  async function showUnits(id) {
    unitsOf = id;
    const answer = await fetch(`/map/communities/${encodeURIComponent(id)}`, { headers: { "X-Follows": "1" } })
      .catch(() => null);
    if (unitsOf !== id) return;
    units.clearLayers();
    if (answer === null || !answer.ok) {
      if (answer === null || answer.status === 503) told.textContent = words.none;
      return;
    }
    const { points, elsewhere } = await answer.json();
    if (unitsOf !== id) return;
    const taken = [...known.values()].map((marker) => marker.getLatLng());
    points.forEach((point) => {
      // Where an incident lies, the devices stand beside it.
      const isBeside = taken.some((at) => at.equals([point.lat, point.lon]));
      const rank = Math.max(...point.devices.map((one) => HEALTH.indexOf(one.health)));
      const title = `${point.name} · ${words.devices} ${point.devices.length}`;
      const marker = L.marker([point.lat, point.lon], {
        icon: L.divIcon({
          className: `unit is-${HEALTH[rank]}`,
          html: point.devices.length > 1 ? String(point.devices.length) : "",
          iconSize: [20, 20],
          iconAnchor: isBeside ? [-12, 10] : [10, 10],
        }),
        title,
        alt: title,
        pane: "units",
      });
      marker.bindPopup(() => describeUnits(point.name, point.devices), { maxHeight: 260 });
      units.addLayer(marker);
    });
    told.textContent = elsewhere.length ? `${words.elsewhere} ${elsewhere.length}` : "";
  }

  // --- walking down ---------------------------------------------------------------------------------------------------

  const below = (code) => [...grids.querySelectorAll(`[data-parent="${code}"]`)];

  /** The grids below one are fetched when it is opened first. */
  async function fill(node) {
    if (!("hasMore" in node.dataset) || "filled" in node.dataset) return;
    node.dataset.filled = "";
    const answer = await fetch(`/map/grids/${node.dataset.grid}`).catch(() => null);
    if (answer === null || !answer.ok) {
      delete node.dataset.filled;
      return;
    }
    const sheet = document.createElement("template");
    sheet.innerHTML = await answer.text();
    const rows = [...sheet.content.querySelectorAll(".grid-node")];
    rows.forEach((row) => { row.dataset.lazy = ""; });
    const before = below(node.dataset.grid);
    (before[before.length - 1] || node).after(...rows);
    if (rows.length + before.length === 0) node.querySelector(".grid-name").removeAttribute("aria-expanded");
  }

  function fold(node, isOpen) {
    const button = node.querySelector(".grid-name");
    if (button.hasAttribute("aria-expanded")) button.setAttribute("aria-expanded", String(isOpen));
    below(node.dataset.grid).filter((child) => child.dataset.level !== "department").forEach((child) => {
      child.hidden = !isOpen;
      if (!isOpen && child.dataset.grid) fold(child, false);
    });
  }

  const isOpen = (node) => node.querySelector(".grid-name").getAttribute("aria-expanded") === "true";

  grids.addEventListener("click", async (event) => {
    const button = event.target.closest(".grid-name");
    if (!button) return;
    const node = button.closest(".grid-node");
    if (node.id === "departments") {
      const opens = !isOpen(node);
      button.setAttribute("aria-expanded", String(opens));
      grids.querySelectorAll("[data-level=department]").forEach((one) => {
        one.hidden = !opens;
        if (!opens) fold(one, false);
      });
      return;
    }
    grids.querySelectorAll(".is-current").forEach((other) => other.classList.remove("is-current"));
    node.classList.add("is-current");
    if (node.dataset.community) {
      area.clearLayers();
      await showUnits(node.dataset.community);
      const home = communities.filter((one) => one.id === node.dataset.community);
      const around = units.getLayers().map((marker) => marker.getLatLng());
      if (around.length > 1) map.fitBounds(L.latLngBounds(around).pad(0.15), { maxZoom: 18 });
      else show(pointsOf(home));
      return;
    }
    const isTop = node.classList.contains("depth-0");
    const opens = !isOpen(node);
    if (!isTop && button.hasAttribute("aria-expanded")) {
      if (opens) await fill(node);
      fold(node, opens);
    }
    const own = (node.dataset.points || "").split(";").filter((text) => text).map((text) => text.split(",").map(Number));
    const points = own.length ? own : pointsOf(communities.filter((one) => one.grids.includes(node.dataset.grid)));
    show(points);
    outline(isTop ? [] : points);
  });

  [["layer-cases", [cases]], ["layer-communities", [spots, units]]].forEach(([id, layers]) => {
    document.getElementById(id).addEventListener("change", (event) => {
      layers.forEach((layer) => { if (event.target.checked) map.addLayer(layer); else map.removeLayer(layer); });
    });
  });

  // --- heat of the last days: circles for the rows of its table --------------------------------------------------------

  const NEAR = 15;
  const MOST_NEAR = 8;
  const LARGEST = 34;
  const SMALLEST = 4;
  const page = document.getElementById("map-page");
  const warm = L.layerGroup().addTo(map);
  const warmPlaces = L.layerGroup().addTo(map);
  const fetched = new Map();
  let heatOn = false;

  /** Circles whose areas are to one another as the weights are. Those without a position are in the table alone. */
  function drawRows(rows, layer) {
    layer.clearLayers();
    const spotsByPoint = new Map();
    rows.filter((row) => row.dataset.lon).forEach((row) => {
      const { id, name, number, weight, lon, lat } = row.dataset;
      // Homes have the position of their building: what lies in one point is one circle.
      const point = `${lat},${lon}`;
      const known = spotsByPoint.get(point) || { at: [Number(lat), Number(lon)], id, lines: [], number: 0, weight: 0 };
      known.lines.push(`${name} · ${number}`);
      known.number += Number(number);
      known.weight += Number(weight);
      spotsByPoint.set(point, known);
    });
    const most = Math.max(1, ...[...spotsByPoint.values()].map((spot) => spot.weight));
    spotsByPoint.forEach((spot) => {
      const radius = Math.max(SMALLEST, LARGEST * Math.sqrt(spot.weight / most));
      const circle = L.circleMarker(spot.at, { radius, className: "heat-spot" });
      const label = { permanent: true, direction: "center", className: "heat-number" };
      if (radius >= 11) circle.bindTooltip(String(spot.number), label);
      circle.bindPopup(() => {
        const sheet = document.createElement("div");
        spot.lines.forEach((text) => sheet.append(line(text)));
        return sheet;
      });
      if (layer === warm) circle.on("click", () => mark(spot.id));
      layer.addLayer(circle);
    });
  }

  function heatRows() {
    return [...document.querySelectorAll("#heat .heat-table[data-days] tbody tr[data-id]")];
  }

  function mark(id) {
    heatRows().forEach((row) => {
      row.classList.toggle("is-current", row.dataset.id === id);
      if (row.dataset.id === id) row.scrollIntoView({ block: "nearest" });
    });
  }

  /** Shows what the table says; with it, other layers stand back until they are asked for. */
  function drawHeat() {
    const table = document.querySelector("#heat .heat-table[data-days]");
    const isOn = table !== null;
    page.classList.toggle("has-heat", isOn);
    fetched.clear();
    warmPlaces.clearLayers();
    drawRows(heatRows(), warm);
    if (isOn === heatOn) return lookCloser();
    heatOn = isOn;
    ["layer-cases", "layer-communities"].forEach((id) => {
      const box = document.getElementById(id);
      box.checked = !isOn;
      box.dispatchEvent(new Event("change"));
    });
    map.invalidateSize();
    return lookCloser();
  }

  async function rowsOf(id) {
    const row = heatRows().find((one) => one.dataset.id === id);
    if (!fetched.has(id)) {
      const answer = await fetch(row.querySelector("a").href, { headers: { "HX-Request": "true" } });
      if (!answer.ok) return [];
      const sheet = document.createElement("template");
      sheet.innerHTML = await answer.text();
      fetched.set(id, [...sheet.content.querySelectorAll("tr[data-id]")]);
    }
    return fetched.get(id);
  }

  /** From near, the places take the stead of their communities. */
  async function lookCloser() {
    const isNear = heatOn && map.getZoom() >= NEAR;
    const bounds = map.getBounds();
    const inside = isNear
      ? heatRows().filter((row) => row.dataset.lon && bounds.contains([Number(row.dataset.lat), Number(row.dataset.lon)]))
      : [];
    const shown = inside.length <= MOST_NEAR ? inside : [];
    const found = (await Promise.all(shown.map((row) => rowsOf(row.dataset.id)))).flat();
    const hasPlaces = found.some((row) => row.dataset.lon);
    drawRows(hasPlaces ? found : [], warmPlaces);
    if (heatOn && !hasPlaces) map.addLayer(warm);
    else map.removeLayer(warm);
  }

  map.on("moveend", lookCloser);
  document.addEventListener("htmx:afterSwap", (event) => {
    const id = event.detail.target ? event.detail.target.id : "";
    if (id === "heat") drawHeat();
    if (id === "heat-places") {
      const { community } = document.getElementById("heat-places").dataset;
      mark(community);
      const placed = [...document.querySelectorAll("#heat-places tr[data-lon]")];
      const row = heatRows().find((one) => one.dataset.id === community && one.dataset.lon);
      const points = (placed.length || !row ? placed : [row]).map((one) => [Number(one.dataset.lat), Number(one.dataset.lon)]);
      if (points.length) map.fitBounds(L.latLngBounds(points).pad(0.4), { maxZoom: 18 });
      document.getElementById("heat-places").focus({ preventScroll: true });
    }
  });

  // --- live -------------------------------------------------------------------------------------------------------------

  const CHANGED_MS = 3000;
  const AGAIN_MS = 30000;
  let source = null;
  let due = null;

  /** Numbers and health are read again soon after something has changed, and now and then. */
  function readSoon(wait) {
    if (due !== null && due.at <= performance.now() + wait) return;
    if (due !== null) clearTimeout(due.timer);
    const timer = setTimeout(async () => {
      due = null;
      if (document.hidden) return;
      try {
        take(await read());
        // Whoever reads which devices lie in a point goes on reading.
        const isRead = units.getLayers().some((mark) => mark.isPopupOpen());
        if (unitsOf !== "" && map.hasLayer(units) && !isRead) await showUnits(unitsOf);
      } catch {
        // The stream says that the link is gone.
      }
      readSoon(AGAIN_MS);
    }, wait);
    due = { timer, at: performance.now() + wait };
  }

  function say(kind) {
    state.textContent = words[kind] || state.dataset[kind];
    state.classList.toggle("is-live", kind === "live");
    state.classList.toggle("is-away", kind !== "live");
  }

  function follow() {
    if (source !== null) source.close();
    source = null;
    if (document.hidden) return;
    const address = new URL(words.stream, location.href);
    if (position !== null) address.searchParams.set("after", position);
    source = new EventSource(address);
    source.addEventListener("case", (event) => {
      putCase(JSON.parse(event.data));
      readSoon(CHANGED_MS);
    });
    source.addEventListener("gone", (event) => {
      dropCase(JSON.parse(event.data).id);
      readSoon(CHANGED_MS);
    });
    source.addEventListener("resync", async () => {
      source.close();
      try {
        take(await read());
      } catch {
        // Once more, as after a broken link.
      }
      setTimeout(follow, 1000);
    });
    source.addEventListener("pulse", (event) => {
      const pulse = JSON.parse(event.data);
      position = event.lastEventId || position;
      say(!pulse.is_fresh ? "stale" : pulse.is_gateway_there ? "live" : "gone");
    });
    source.addEventListener("error", () => {
      say("away");
      if (source.readyState !== EventSource.CLOSED) return;
      sessions.isOver().then((isIt) => { if (isIt) say("signedOut"); });
      setTimeout(follow, 4000);
    });
  }

  function tellZoom() {
    holder.classList.toggle("is-near", map.getZoom() >= 14);
    holder.classList.toggle("is-far", map.getZoom() < 10);
  }
  new ResizeObserver(() => map.invalidateSize({ pan: false })).observe(holder);
  map.on("zoomend", tellZoom);
  map.setView([36.45, 120.5], 10);
  take(await read());
  show(pointsOf(communities));
  drawHeat();
  document.addEventListener("visibilitychange", () => {
    follow();
    if (!document.hidden) readSoon(0);
  });
  follow();
  readSoon(AGAIN_MS);
})();
