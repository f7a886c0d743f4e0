#!/bin/sh
# Starts the deployment's broker: makes the gateway's password known to it, then hands over to Mosquitto.
#
# Sources' passwords live in the same file:
#   docker compose exec --user mosquitto broker mosquitto_passwd /mosquitto/data/passwords agent-0001
#   docker compose kill -s HUP broker
set -eu
umask 077

passwords=/mosquitto/data/passwords
touch "$passwords"
# The password travels through a file, never through an argument that a process list would show.
printf 'gateway:%s\n' "$BROKER_PASSWORD" >"$passwords.gateway"
mosquitto_passwd -U "$passwords.gateway"
grep -v '^gateway:' "$passwords" >>"$passwords.gateway" || true
mv "$passwords.gateway" "$passwords"
chown mosquitto: "$passwords"

unset BROKER_PASSWORD
exec mosquitto -c /mosquitto/config/mosquitto.conf
