#!/usr/bin/env bash
# Unpacks Debian's Python for 64-bit Arm, headers included, into a folder that qemu takes for /; prints the folder.
#
#   scripts/arm64_python.sh PYTHON      it is of PYTHON's version
set -euo pipefail
python=$(realpath --no-symlinks "$1")
cd "$(dirname "$0")/.."
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
root=$PWD/build/arm64/python-$version
if [ ! -d "$root" ]; then
  # apt has its lists in a folder too, so that nothing here becomes a machine of two architectures.
  lists=$PWD/build/arm64/apt
  rm -rf "$root.part" "$lists"
  mkdir -p "$root.part/debs" "$lists/lists/partial" "$lists/cache/archives/partial"
  : >"$lists/status"
  apt=(apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o APT::Sandbox::User=root
    -o Dir::State="$lists" -o Dir::State::status="$lists/status" -o Dir::Cache="$lists/cache")
  "${apt[@]}" update >&2
  # Of its libraries only those that numpy, ctypes and zipfile need; the C library is the cross compiler's.
  packages=("python$version-minimal" "libpython$version"-{minimal,stdlib,dev} libexpat1 libffi8 zlib1g)
  if ! (cd "$root.part/debs" && "${apt[@]}" download "${packages[@]}" >&2); then
    echo "Error: Debian here has no Python $version, which $1 is; use a Python of Debian's version" >&2
    exit 1
  fi
  for package in "$root.part"/debs/*.deb; do dpkg-deb --extract "$package" "$root.part"; done
  ln -sf /usr/aarch64-linux-gnu/lib/*.so* "$root.part/lib/"
  # The header that chooses between architectures looks for the chosen one where a compiler's own headers are.
  cp "$root.part/usr/include"/{aarch64-linux-gnu,.}/"python$version/pyconfig.h"
  rm -rf "$root.part/debs" "$lists"
  mv "$root.part" "$root"
fi
echo "$root"
