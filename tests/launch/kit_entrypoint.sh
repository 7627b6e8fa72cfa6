#!/bin/sh
# A replica of how NVIDIA's images of Kit start it, from public facts and in words of our own: a line is put together of
# what the image runs, of NVDA_KIT_ARGS and of the container's arguments, and evaluated. Kit is a child of this shell.
root=${KIT_REPLICA_ROOT:-/app}
line="$root/kit/kit $root/apps/streaming.kit --no-window --ext-folder $root/exts $NVDA_KIT_ARGS"
if [ -n "$NVDA_KIT_NUCLEUS" ]; then
    line="$line --/ovc/nucleus/server=$NVDA_KIT_NUCLEUS"
fi
for argument in "$@"; do
    line="$line $argument"
done
eval "$line"
status=$?
echo "Kit ended with status $status."
exit "$status"
