#!/bin/sh
# Greets whoever the event names: {"name": "you"}.
set -eu

# The event is the body of the call, byte for byte.
event=$(cat)

# A script needs no JSON parser for one plain field; anything but letters, digits and ` ._-` ends the name.
name=$(printf '%s' "$event" | tr '\n' ' ' | sed -n 's/.*"name"[[:space:]]*:[[:space:]]*"\([A-Za-z0-9 ._-]*\).*/\1/p')

# stderr is log only: it never gets into the result.
echo "execution $RUNLET_EXECUTION, attempt $RUNLET_ATTEMPT, ${#event} characters of event" >&2

# stdout is the result. A status other than 0 would make the execution fail.
printf '{"greeting": "%s, %s!", "function": "%s"}\n' "$GREETING" "${name:-world}" "$RUNLET_FUNCTION"
