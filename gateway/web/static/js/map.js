// The map: communities by the health of their devices, open incidents above them, and the grids to walk down.
"use strict";

(async function () {
  const holder = document.getElementById("map");
  const words = holder.dataset;
  const state = document.getElementById("link-state");
  const RANK = { normal: 0, urgent: 1, critical: 2 };
  const COLOURS = ["normal", "urgent", "critical"];

  const map = L.map(holder, { zoomControl: false, attributionControl: false, minZoom: 8, maxZoom: 18, zoomSnap: 0.5 });
  L.control.zoom({ position: "topright", zoomInTitle: words.zoomIn, zoomOutTitle: words.zoomOut }).addTo(map);
  L.control.scale({ imperial: false, position: "bottomleft" }).addTo(map);

  /** A number where many lie together, in the colour of the gravest. */
  function cluster(kind) {
    return L.markerClusterGroup({
      showCoverageOnHover: false,
      maxClusterRadius: kind === "cases" ? 44 : 36,
      disableClusteringAtZoom: 16,
      iconCreateFunction(group) {
        const markers = group.getAllChildMarkers();
        const rank = Math.max(...markers.map((marker) => marker.options.rank));
        const size = 28 + Math.min(16, markers.length);
        const look = kind === "cases" ? `is-${COLOURS[rank]}` : "is-spots";
        return L.divIcon({ html: String(markers.length), className: `cluster ${look}`, iconSize: [size, size] });
      },
    });
  }

  const spots = cluster("spots").addTo(map);
  const cases = cluster("cases").addTo(map);
  const towns = L.layerGroup().addTo(map);
  const known = new Map();
  let communities = [];

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

  function putSpot(one) {
    const marker = L.marker([one.lat, one.lon], {
      icon: L.divIcon({ className: `spot is-${one.health}`, html: line(one.name, "spot-name"), iconSize: [16, 16] }),
      title: one.name,
      alt: one.name,
      rank: 0,
      zIndexOffset: -1000,
    });
    marker.bindPopup(() => {
      const sheet = document.createElement("div");
      const head = document.createElement("b");
      head.textContent = one.name;
      sheet.append(head);
      sheet.append(line(`${words.devices} ${one.devices}${one.sick ? ` · ${words.sick} ${one.sick}` : ""}`));
      if (one.silent) sheet.append(line(words.silent, "is-sick"));
      const open = one.levels.critical + one.levels.urgent + one.levels.normal;
      sheet.append(link(`/board?community=${encodeURIComponent(one.id)}`, `${words.open} ${open}`));
      return sheet;
    });
    spots.addLayer(marker);
  }

  function putCase(one) {
    dropCase(one.id);
    const marker = L.marker([one.lat, one.lon], {
      icon: L.divIcon({ className: `pin is-${one.level}`, iconSize: [18, 18] }),
      title: `${one.level_name} ${one.title}`,
      alt: `${one.level_name} ${one.title}`,
      rank: RANK[one.level],
    });
    marker.bindPopup(() => {
      const sheet = document.createElement("div");
      sheet.append(link(`/incidents/${one.id}`, one.title || one.number));
      sheet.append(line([...(one.simulated ? [words.simulated] : []), one.level_name, one.state, one.number].join(" · ")));
      return sheet;
    });
    known.set(one.id, marker);
    cases.addLayer(marker);
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

  function show(inside) {
    if (inside.length === 0) return;
    const bounds = L.latLngBounds(inside.map((one) => [one.lat, one.lon]));
    map.fitBounds(bounds.pad(0.06), { maxZoom: 16 });
  }

  async function load() {
    const answer = await fetch("/map/data", { headers: { "X-Follows": "1" } });
    if (!answer.ok) throw new Error(String(answer.status));
    const data = await answer.json();
    communities = data.communities;
    spots.clearLayers();
    cases.clearLayers();
    known.clear();
    communities.forEach(putSpot);
    data.cases.forEach(putCase);
    nameTowns(data.towns);
  }

  // --- walking down ---------------------------------------------------------------------------------------------------

  const nodes = [...document.querySelectorAll(".grid-node")];

  function below(code) {
    return nodes.filter((node) => node.dataset.parent === code);
  }

  function fold(node, isOpen) {
    const button = node.querySelector(".grid-name");
    if (button.hasAttribute("aria-expanded")) button.setAttribute("aria-expanded", String(isOpen));
    below(node.dataset.grid).forEach((child) => {
      child.hidden = !isOpen;
      if (!isOpen && child.dataset.grid) fold(child, false);
    });
  }

  document.getElementById("grids").addEventListener("click", (event) => {
    const button = event.target.closest(".grid-name");
    if (!button) return;
    const node = button.closest(".grid-node");
    nodes.forEach((other) => other.classList.toggle("is-current", other === node));
    if (node.dataset.community) {
      show(communities.filter((one) => one.id === node.dataset.community));
      return;
    }
    const isOpen = below(node.dataset.grid).some((child) => !child.hidden);
    const isTop = node.classList.contains("depth-0");
    if (!isTop) fold(node, !isOpen);
    show(communities.filter((one) => one.grids.includes(node.dataset.grid)));
  });
  nodes.filter((node) => node.classList.contains("depth-2")).forEach((node) => {
    node.querySelector(".grid-name").setAttribute("aria-expanded", "false");
  });

  [["layer-cases", cases], ["layer-communities", spots]].forEach(([id, layer]) => {
    document.getElementById(id).addEventListener("change", (event) => {
      if (event.target.checked) map.addLayer(layer);
      else map.removeLayer(layer);
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

  let source = null;
  let position = null;

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
    source.addEventListener("case", (event) => putCase(JSON.parse(event.data)));
    source.addEventListener("gone", (event) => dropCase(JSON.parse(event.data).id));
    source.addEventListener("resync", () => location.reload());
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
  map.on("zoomend", tellZoom);
  map.setView([36.45, 120.5], 10);
  await load();
  show(communities);
  drawHeat();
  document.addEventListener("visibilitychange", follow);
  follow();
})();
