#!/bin/sh
# Makes ./secrets for docker-compose.yml: random passwords, addresses made of them, and the
# gateway's credentials, which it asks for (or takes from PORTONE_IMP_KEY, PORTONE_IMP_SECRET).
# What is there already is kept, so that it may be called again.
set -eu
umask 077
folder=${1:-secrets}
mkdir -p "$folder"

keep() { # NAME VALUE
    [ -s "$folder/$1" ] || printf '%s' "$2" > "$folder/$1"
}
chance() { head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
# What is typed at a terminal is not shown there; whatever ends this, the terminal is as before.
hide() {
    [ -t 0 ] || return 0
    terminal=$(stty -g)
    trap 'stty "$terminal"' EXIT
    trap 'exit 130' INT TERM
    stty -echo
}
show() {
    [ -t 0 ] || return 0
    stty "$terminal"
    trap - EXIT INT TERM
    echo >&2
}
ask() { # NAME PROMPT VALUE
    [ ! -s "$folder/$1" ] || return 0
    value=$3
    if [ -z "$value" ]; then
        hide
        printf '%s: ' "$2" >&2
        read -r value
        show
    fi
    [ -n "$value" ] || { echo "secrets: $2 is needed" >&2; exit 1; }
    printf '%s' "$value" > "$folder/$1"
}

for name in postgres postgres_owner postgres_run redis console flower; do
    keep "${name}_password" "$(chance)"
done
keep api_token "$(chance)"
# The daemons' role, and the schema's owner, for the migration (docs/security.md).
database() { # ROLE PASSWORD-FILE
    printf 'postgresql+psycopg://%s:%s@postgres/maewol' "$1" "$(cat "$folder/$2")"
}
keep database_url "$(database maewol_run postgres_run_password)"
keep database_owner_url "$(database maewol postgres_owner_password)"
keep broker_url "redis://maewol:$(cat "$folder/redis_password")@valkey:6379/0"
ask portone_imp_key "REST API key (imp_key)" "${PORTONE_IMP_KEY:-}"
ask portone_imp_secret "REST API secret (imp_secret)" "${PORTONE_IMP_SECRET:-}"
# Compose mounts each file as it is, and the processes are not the user who made them: they may read
# the files, while nobody else on this host gets into the folder.
chmod 700 "$folder"
chmod 644 "$folder"/*
echo "secrets: in $folder; keep it out of version control and of backups that others read" >&2
