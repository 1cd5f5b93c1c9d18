# Waits for the end of stdin, then removes the folder $1 of a test: the containers and daemons
# that still run in it, what is mounted below it, and itself. Processes are found by pid: those
# that containerd's state names, and those whose command line names a path in the folder.
folder=$1
cat >/dev/null

ids=
for pid_file in "$folder"/state/*/k8s.io/*/init.pid "$folder"/*/state/*/k8s.io/*/init.pid; do
    [ -f "$pid_file" ] || continue
    kill -9 "$(cat "$pid_file")"
    bundle=${pid_file%/init.pid}
    ids="$ids ${bundle##*/}"
done
for process in /proc/[0-9]*; do
    pid=${process#/proc/}
    [ "$pid" != $$ ] || continue
    if tr '\0' ' ' <"$process/cmdline" | grep -qF "$folder/"; then kill -9 "$pid"; fi
done

# A mount can be busy until the last of the killed processes is gone.
tries=0
while [ $tries -lt 50 ]; do
    cut -d' ' -f2 /proc/self/mounts | grep -F "$folder/" | sort -r | while read -r mount; do umount "$mount"; done
    rm -rf --one-file-system "$folder"
    [ -e "$folder" ] || break
    tries=$((tries + 1))
    sleep 0.1
done
for id in $ids; do
    rm -rf "/run/containerd/runc/k8s.io/$id"
    find /sys/fs/cgroup -depth -type d -path "*/k8s.io/$id*" -exec rmdir {} \;
done
exit 0
