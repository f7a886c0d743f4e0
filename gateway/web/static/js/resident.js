/* A resident's help page. It must run in browsers of 2014, so it is ES5 and asks by XMLHttpRequest. Without it the page
   is a plain form that works as well; with it one holds the button, and a press is sent again until it has arrived. */
(function () {
  'use strict';

  var HOLD_MS = 2000;
  var ANSWER_MS = 20000;
  var PAUSES_MS = [1000, 2000, 4000, 8000, 15000, 30000];
  var LOOKS_MS = [3000, 5000, 10000, 15000, 30000];
  var FRESH_MS = 600000;
  var RECEIPT_MS = 86400000;

  function find(id) { return document.getElementById(id); }

  function show(element, is) { element.hidden = !is; }

  // --- what this telephone remembers: only of this page, and only until it has arrived -------------------------------

  var memory = {};

  function remember(key, value) {
    memory[key] = value;
    try {
      if (value === null) { window.localStorage.removeItem(key); } else { window.localStorage.setItem(key, JSON.stringify(value)); }
    } catch (e) { /* a private window keeps nothing: what is in memory has to do */ }
  }

  function recall(key) {
    if (memory.hasOwnProperty(key)) { return memory[key]; }
    try { return JSON.parse(window.localStorage.getItem(key) || 'null'); } catch (e) { return null; }
  }

  // --- asking --------------------------------------------------------------------------------------------------------

  function ask(method, url, body, then) {
    var request = new XMLHttpRequest();
    var isDone = false;
    function end() {
      if (isDone) { return; }
      isDone = true;
      var answer = null;
      try { answer = JSON.parse(request.responseText); } catch (e) { /* a proxy's page says nothing of ours */ }
      then(answer ? request.status : 0, answer || {});
    }
    request.open(method, url, true);
    request.timeout = ANSWER_MS;
    request.setRequestHeader('Accept', 'application/json');
    request.onload = end;
    request.onerror = request.ontimeout = request.onabort = end;
    if (body !== null) { request.setRequestHeader('Content-Type', 'application/x-www-form-urlencoded'); }
    request.send(body);
  }

  function encode(fields) {
    var parts = [];
    for (var name in fields) {
      if (fields.hasOwnProperty(name)) { parts.push(name + '=' + encodeURIComponent(fields[name])); }
    }
    return parts.join('&');
  }

  function step(pauses, turn) { return pauses[Math.min(turn, pauses.length - 1)] * (0.9 + Math.random() * 0.2); }

  // --- progress ------------------------------------------------------------------------------------------------------

  function tell(answer) {
    var items = find('steps').children;
    for (var i = 0; i < items.length; i++) {
      var at = answer.steps[i][1];
      items[i].className = at ? 'is-on' : '';
      items[i].lastElementChild.textContent = at;
      if (answer.steps[i][0] === answer.stage) { items[i].setAttribute('aria-current', 'step'); } else { items[i].removeAttribute('aria-current'); }
    }
    if (find('note').textContent !== answer.note) { find('note').textContent = answer.note; }
  }

  function follow(url, then) {
    var turn = 0;
    (function look() {
      window.setTimeout(function () {
        turn += 1;
        ask('GET', url, null, function (status, answer) {
          if (status === 200) {
            tell(answer);
            then(answer);
            if (answer.over) { return; }
          }
          look();
        });
      }, step(LOOKS_MS, turn));
    }());
  }

  // --- a receipt's own page ------------------------------------------------------------------------------------------

  var form = find('call');
  if (!form) {
    var done = find('done');
    if (done && done.getAttribute('data-over') === '0') {
      follow(window.location.href, function (answer) {
        // The question at the end is the server's: it comes with the page.
        if (answer.over) { window.location.reload(); }
      });
    }
    return;
  }

  // --- calling -------------------------------------------------------------------------------------------------------

  var PENDING = 'press:' + window.location.pathname;
  var RECEIPT = 'receipt:' + window.location.pathname;
  var button = find('send');
  var dial = find('dial');
  var pending = null;
  var turn = 0;
  var timer = 0;
  var isAsking = false;

  function text(name, values) {
    return form.getAttribute('data-' + name).replace(/\{(\w+)\}/g, function (whole, key) { return values[key]; });
  }

  function say(words, isBad) {
    var line = find('say');
    // The same words again would be read out again at every attempt.
    if (line.textContent !== words) { line.textContent = words; }
    line.className = isBad ? 'say is-bad' : 'say';
    show(line, words !== '');
    dial.className = isBad ? 'dial is-urgent' : 'dial';
  }

  function makeId() {
    var source = window.crypto || window.msCrypto;
    if (!source || !source.getRandomValues) { return form.elements.id.value; }
    var bytes = source.getRandomValues(new Uint8Array(16));
    var id = '';
    for (var i = 0; i < bytes.length; i++) { id += (bytes[i] < 16 ? '0' : '') + bytes[i].toString(16); }
    return id;
  }

  function chosen() {
    var needs = form.elements.need;
    for (var i = 0; i < needs.length; i++) { if (needs[i].checked) { return needs[i].value; } }
    return '';
  }

  function press() {
    if (pending) { return; }
    pending = { id: makeId(), at: Date.now(), need: chosen(), phone: form.elements.phone.value, words: form.elements.words.value };
    remember(PENDING, pending);
    if (navigator.vibrate) { navigator.vibrate(200); }
    send();
    find('say').focus();
  }

  function send() {
    if (!pending || isAsking) { return; }
    window.clearTimeout(timer);
    isAsking = true;
    button.disabled = true;
    show(find('sure'), false);
    show(find('earlier'), false);
    show(find('hint'), false);
    if (turn === 0) { say(text('sending', {}), false); }
    var asked = pending;
    var fields = { id: asked.id, need: asked.need, phone: asked.phone, words: asked.words, lang: form.elements.lang.value, waited: Math.max(0, Date.now() - asked.at) };
    ask('POST', form.action, encode(fields), function (status, answer) {
      isAsking = false;
      if (pending === asked) { hear(status, answer); }
    });
  }

  function hear(status, answer) {
    if (status === 200) { arrive(answer); return; }
    if (status === 404 || status === 410) { give(text('replaced', {})); return; }
    if (status === 429 && answer.number) { give(text('busy', answer)); return; }
    if (status === 409) {
      // This id came to nothing, or was another place's.
      pending.id = makeId();
      remember(PENDING, pending);
    }
    say(text(status === 0 ? 'offline' : 'away', {}), true);
    show(find('stop'), true);
    timer = window.setTimeout(send, step(PAUSES_MS, turn));
    turn += 1;
  }

  function forget() {
    window.clearTimeout(timer);
    pending = null;
    turn = 0;
    remember(PENDING, null);
    button.disabled = false;
    show(find('stop'), false);
  }

  function give(words) {
    forget();
    say(words, true);
  }

  function arrive(answer) {
    forget();
    say('', false);
    show(form, false);
    show(find('last'), false);
    show(find('done'), true);
    find('done-title').firstElementChild.textContent = text(answer.number ? 'recorded' : 'tested', {});
    find('done-title').lastElementChild.textContent = answer.number;
    tell(answer);
    find('receipt').href = answer.receipt;
    show(find('receipt'), !answer.over);
    find('done-title').focus();
    window.scrollTo(0, 0);
    if (!answer.over) {
      remember(RECEIPT, { url: answer.receipt, at: Date.now() });
      follow(answer.receipt, function (now) {
        if (now.rate) { find('receipt').textContent = text('rate', {}); } else if (now.over) { show(find('receipt'), false); }
      });
    }
  }

  find('again').onclick = function () { window.location.reload(); };
  find('stop').onclick = function () { forget(); say('', false); show(find('hint'), true); };
  find('still').onclick = function () { pending = earlier; send(); };
  find('never').onclick = function () { forget(); show(find('earlier'), false); };
  window.addEventListener('online', function () { if (timer) { send(); } });

  // --- holding -------------------------------------------------------------------------------------------------------

  var hold = 0;

  function begin() {
    if (hold || pending) { return; }
    button.className = 'send is-held';
    button.lastElementChild.textContent = form.getAttribute('data-holding');
    hold = window.setTimeout(function () { end(true); press(); }, HOLD_MS);
  }

  function end(isHeld) {
    if (!hold) { return; }
    window.clearTimeout(hold);
    hold = 0;
    button.className = 'send';
    button.lastElementChild.textContent = form.getAttribute('data-hold');
    if (!isHeld) { offer(); }
  }

  function offer() {
    // Whoever cannot hold a button (a screen reader's double tap, a trembling hand) has a second one instead.
    say(text('short', {}), false);
    show(find('sure'), true);
    find('sure').firstElementChild.focus();
  }

  function stopped(event) { end(false); event.preventDefault(); }

  button.type = 'button';
  button.setAttribute('aria-describedby', 'hint');
  button.lastElementChild.textContent = form.getAttribute('data-hold');
  button.addEventListener('touchstart', function (event) { begin(); event.preventDefault(); });
  button.addEventListener('touchend', stopped);
  button.addEventListener('touchcancel', stopped);
  button.addEventListener('mousedown', function (event) { if (event.button === 0) { begin(); } });
  button.addEventListener('mouseup', function () { end(false); });
  button.addEventListener('mouseleave', function () { end(false); });
  button.addEventListener('blur', function () { end(false); });
  button.addEventListener('contextmenu', function (event) { event.preventDefault(); });
  button.addEventListener('keydown', function (event) {
    if (event.keyCode === 13 || event.keyCode === 32) { begin(); event.preventDefault(); }
  });
  button.addEventListener('keyup', function (event) {
    if (event.keyCode === 13 || event.keyCode === 32) { end(false); event.preventDefault(); }
  });
  // A click without a hold before it comes from a program that speaks for somebody.
  button.addEventListener('click', function (event) { if (event.detail === 0 && !pending) { offer(); } });
  find('sure').firstElementChild.onclick = press;
  form.addEventListener('submit', function (event) { event.preventDefault(); });

  // --- coming back ---------------------------------------------------------------------------------------------------

  var earlier = recall(PENDING);
  var receipt = recall(RECEIPT);
  if (earlier && earlier.id) {
    if (Date.now() - earlier.at < FRESH_MS) {
      pending = earlier;
      send();
    } else {
      var at = new Date(earlier.at);
      var clock = at.getHours() + ':' + (at.getMinutes() < 10 ? '0' : '') + at.getMinutes();
      find('earlier').firstElementChild.textContent = text('earlier', { time: clock });
      show(find('earlier'), true);
    }
  } else if (receipt && Date.now() - receipt.at < RECEIPT_MS) {
    find('last').firstElementChild.href = receipt.url;
    show(find('last'), true);
  }
}());
