#!/bin/sh
# Sees to the servers that tests run against. As root on Debian it installs what is missing and starts nothing;
# elsewhere it says what to install. It never fails: tests that miss their server say so themselves.
set -u

missing=
PATH="$PATH:/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"
command -v mosquitto >/dev/null 2>&1 || missing="$missing mosquitto"
has_postgres() {
    for folder in $(pg_config --bindir 2>/dev/null) /usr/lib/postgresql/*/bin /opt/homebrew/bin /usr/local/bin; do
        [ -x "$folder/initdb" ] && return 0
    done
    return 1
}
has_postgres || missing="$missing postgresql"
command -v espeak-ng >/dev/null 2>&1 || missing="$missing espeak-ng"
# The fault harness compiles the library that loses what was not fsynced.
command -v cc >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
# The browser tests: the browser, a font that knows Chinese, and npm for the browser's libraries.
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
[ -n "$(fc-list :lang=zh-cn 2>/dev/null)" ] || missing="$missing fonts-noto-cjk"
command -v npm >/dev/null 2>&1 || missing="$missing npm"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || [ ! -e /etc/debian_version ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "servers: not installed:$missing; the tests that need them are named at the end" >&2
    exit 0
fi

echo "servers: installing$missing"
# Debian starts a server that it installs, unless this file says no. It is removed again if it was not there before.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
install() {
    # shellcheck disable=SC2086 # one word per package
    apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=120 $missing >"$log" 2>&1 </dev/null
}
if ! install; then
    apt-get update -q >>"$log" 2>&1
    if ! install; then
        tail -n 5 "$log" >&2
        echo "servers: could not install:$missing; the tests that need them are named at the end" >&2
    fi
fi
rm -f "$log"
exit 0
