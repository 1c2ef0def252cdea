#!/bin/bash
# The executor on pure cgroup v2: Debian's cloud kernel in qemu, without hardware help, with an initramfs that holds the smoke program,
# the libraries it needs and a busybox. Prints the rows. What is missing is fetched as Debian packages into target/v2 and
# unpacked there: nothing is installed.
set -eu -o pipefail
cd "$(dirname "$0")/../.."
work=$PWD/target/v2
mkdir -p "$work/debs"
fail() { echo "verify-v2: $*" >&2; exit 1; }

fetch() {
    [ ! -e "$work/fetched" ] || return 0
    [ -n "$(ls -A /var/lib/apt/lists 2>/dev/null)" ] || apt-get update -qq
    local kernel
    kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ {print $2; exit}')
    [ -n "$kernel" ] || fail "there is no package linux-image-cloud-amd64; this step needs Debian on amd64"
    # The packages that qemu needs and this host lacks, as apt would choose them; nothing is installed.
    apt-get -y -qq --no-install-recommends --download-only -o Dir::Cache::archives="$work/debs" install qemu-system-x86 busybox-static >/dev/null
    (cd "$work/debs" && apt-get download -qq "$kernel" 2>/dev/null)
    rm -rf "$work/host" "$work/kernel"
    for package in "$work"/debs/*.deb; do
        case ${package##*/} in
        linux-image-*) dpkg-deb -x "$package" "$work/kernel" ;;
        *) dpkg-deb -x "$package" "$work/host" ;;
        esac
    done
    touch "$work/fetched"
}

# A merged-/usr root with the program, its libraries and a busybox for every command that the sandboxes use.
make_root() {
    local root=$work/root busybox=$work/host/bin/busybox
    [ -e "$busybox" ] || busybox=$(command -v busybox) || fail "busybox-static is not there"
    rm -rf "$root"
    mkdir -p "$root"/{proc,sys,dev,run,tmp,etc,var,root,new} "$root"/usr/{bin,sbin,lib,lib64}
    for name in bin sbin lib lib64; do ln -s "usr/$name" "$root/$name"; done
    cp "$busybox" "$root/usr/bin/busybox"
    for name in sh cat dd sleep head tail id wc setsid mount mkdir cp switch_root poweroff echo; do ln -s busybox "$root/usr/bin/$name"; done
    cp "$1" "$root/usr/bin/smoke"
    strip "$root/usr/bin/smoke" 2>/dev/null || true
    ldd "$1" | grep -o '/[^ ]*' | while read -r library; do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
    cp tests/v2/init.sh "$root/init"
    chmod 0755 "$root/init"
    (cd "$root" && find . | "$busybox" cpio -o -H newc 2>/dev/null | gzip -1) >"$work/initramfs.gz"
}

start() {
    local kernel qemu
    kernel=$(ls "$work"/kernel/boot/vmlinuz-* | tail -n 1)
    qemu=$(command -v qemu-system-x86_64) || qemu=$work/host/usr/bin/qemu-system-x86_64
    LD_LIBRARY_PATH=$work/host/usr/lib/x86_64-linux-gnu:$work/host/lib/x86_64-linux-gnu timeout 300 "$qemu" \
        -L "$work/host/usr/share/qemu" -L "$work/host/usr/share/seabios" -accel tcg -cpu max -m 1024 -smp 1 \
        -nographic -no-reboot -nodefaults -serial stdio \
        -kernel "$kernel" -initrd "$work/initramfs.gz" -append "console=ttyS0 quiet cgroup_no_v1=all panic=-1" </dev/null |
        tr -d '\r' | tee "$work/console.log"
}

fetch
cargo build --locked --quiet --package runlet-executor --example smoke
target=$(cargo metadata --format-version 1 --no-deps --offline |
    /usr/bin/python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
make_root "$target/debug/examples/smoke"
start >&2
grep -q '^smoke: passed' "$work/console.log" || fail "the smoke did not pass; target/v2/console.log has all of it"
[ -z "${RUNLET_VERIFY_TABLE:-}" ] || {
    grep -o 'kernel: .*' "$work/console.log"
    echo
    grep '^|' "$work/console.log"
    printf '\nqemu without hardware help: its times mean nothing.\n'
} >"$RUNLET_VERIFY_TABLE"
