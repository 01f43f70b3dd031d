#!/usr/bin/env bash
# 'paraedge profile' over adb, and 'paraedge verify' over ssh, through an emulated device that has a shell, /proc, /sys and
# nothing else of a system.
#
#   scripts/test_phone_tools.sh BIN      after test_arm64.sh, whose bundle and processor it uses
#
# The clients are stand-ins; what they start are the files of 'make phone-tools'. No phone was at hand.
set -euo pipefail
bin=$(realpath --no-symlinks "$1")
cd "$(dirname "$0")/.."
build=$PWD/build/arm64
phone=$build/phone
say() { echo "[$SECONDS s] $*"; }

scripts/need_debian.sh busybox-static qemu-user-static
rm -rf "$phone" "$build/phone-bin" "$build/phone-cache"
mkdir -p "$phone"/{dev,proc,system/bin,data/local/tmp} "$build"/phone-{bin,cache}
scripts/make_phone_tools.sh "$bin/python" "$build/phone-cache/phone-tools"
size=$(du --summarize --bytes "$build/phone-cache/phone-tools" | cut -f 1)
packed=$(tar -cz -C "$build/phone-cache/phone-tools" . | wc -c)
[ "$size" -le 18000000 ] && [ "$packed" -le 6000000 ] || { echo "Error: phone-tools has $size bytes, $packed packed" >&2; exit 1; }
say "phone-tools: $size bytes, $packed packed"

# ---- the phone: Debian's busybox is its shell, its processor is test_arm64.sh's Cortex-A76. Busybox knows this machine's
#      name only, so the script that it is given has the processor's.
cp /bin/busybox "$phone/system/bin/busybox"
for program in sh cat chmod find ls mkdir mv rm rmdir tar; do ln -s busybox "$phone/system/bin/$program"; done
cp -r "$build/cortex-a76/sys" "$phone/sys"
: >"$phone/dev/null"

# A command in it. Programs of 64-bit Arm run by a binfmt_misc of this namespace only: nothing is registered on the machine.
cat >"$build/phone-bin/in-phone" <<IN_PHONE
#!/usr/bin/env bash
exec unshare --user --map-root-user --mount bash -c '
  set -e
  mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
  echo ":arm64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:F" \
    >/proc/sys/fs/binfmt_misc/register
  mount --bind /dev/null $phone/dev/null
  mount --rbind /proc $phone/proc
  mount --bind $build/cortex-a76/proc/cpuinfo $phone/proc/cpuinfo
  cd $phone
  exec env -i PATH=/system/bin QEMU_CPU=cortex-a76 "QEMU_UNAME=\${KERNEL:-5.10.198}" "QEMU_PAGESIZE=\${PAGE:-4096}" \
    $(command -v chroot) $phone /system/bin/sh -c "\$1"' _ "\${1//uname -m/echo aarch64}"
IN_PHONE
cat >"$build/phone-bin/adb" <<ADB
#!/usr/bin/env bash
set -e
[ "\$1 \$2" = "-s 0A1B2C" ]
case \$3 in
  get-state) echo device ;;
  push) echo "push \$5" >>$build/phone-adb.log; cp -r "\$4" "$phone\$5" ;;
  shell) [ "\$4" != -T ] || shift; exec $build/phone-bin/in-phone "\$4" ;;
  *) exit 1 ;;
esac
ADB
cat >"$build/phone-bin/ssh" <<SSH
#!/usr/bin/env bash
[ "\${*: -2:1}" = board ] && exec $build/phone-bin/in-phone "\${*: -1}"
SSH
chmod 755 "$build"/phone-bin/{adb,ssh,in-phone}
: >"$build/phone-adb.log"

# ---- five lines of docs/phones.md: a phone on a cable, and its profile
device=$build/phone.json
begin=$SECONDS
printf '{"format": "paraedge-device/1", "name": "phone", "connection": {"kind": "adb", "serial": "0A1B2C"}}' >"$device"
export PATH=$build/phone-bin:$PATH PARAEDGE_CACHE=$build/phone-cache
timeout 600 "$bin/paraedge" profile "$device" "$build/test.paraedge" --threads 2 >"$build/phone.txt"
"$bin/python" - "$device" <<'PYTHON'
import sys

from paraedge_measure.device import read_device

device = read_device(sys.argv[1])
(measured,) = device.measurements
assert measured.parts.keys() == {"stem", "branch_00", "branch_01", "branch_02"}, measured.parts
assert measured.threads == 2 and measured.engine == "executorch" and measured.engine_version
assert measured.memory_bytes and len(measured.contention) == 2, measured
PYTHON
say "profiled three branches over adb in $((SECONDS - begin)) s, with nothing of a system on the phone"
tools=$(sed -n 's/^push \(.*tools-[0-9a-f]*\)\.[0-9a-f]*\.new$/\1/p' "$build/phone-adb.log")
there=$(sed -n 's/^push \(.*\.paraedge\)\.[0-9a-f]*\.new$/\1/p' "$build/phone-adb.log")
[ "$(wc -l <"$build/phone-adb.log")" = 2 ] || { cat "$build/phone-adb.log" >&2; exit 1; }

# ---- kernels and page sizes of phones: the program loads the bundle and runs it
for system in "4.4.302 4096" "4.14.336 4096" "6.6.30 16384" "6.6.30 65536"; do
  KERNEL=${system% *} PAGE=${system#* } "$build/phone-bin/in-phone" \
    "echo run 1 3 1 | $tools/paraedge-testbed $there 1 2>/dev/null" >"$build/phone-run.txt" ||
    { echo "Error: it ends with kernel and pages $system" >&2; exit 1; }
  [ "$(wc -l <"$build/phone-run.txt")" = 2 ] || { cat "$build/phone-run.txt" >&2; exit 1; }
done
say "runs on kernels 4.4 to 6.6 and pages of 4, 16 and 64 KiB"

# ---- a board without Python, over ssh: the same folder, and nothing is left when it is cleaned
device=$build/board.json
begin=$SECONDS
printf '{"format": "paraedge-device/1", "name": "board", "connection": {"kind": "ssh", "host": "board"}}' >"$device"
timeout 600 "$bin/paraedge" verify "$build/test.paraedge" --profile "$device" >"$build/board.txt"
[ "$(find "$phone/paraedge" -maxdepth 1 -name 'tools-*' -o -maxdepth 1 -name '*.paraedge' | wc -l)" = 2 ]
"$bin/paraedge" profile "$device" --clean >>"$build/board.txt"
[ ! -e "$phone/paraedge" ] || { cat "$build/board.txt" >&2; exit 1; }
say "verified over ssh without Python, and cleaned, in $((SECONDS - begin)) s"
