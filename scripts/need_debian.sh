#!/bin/sh
# Sees to it that Debian packages are installed: root installs what is missing, others are told the line to run.
#
#   scripts/need_debian.sh g++ cmake ninja-build doctest-dev
set -eu

missing=
for package in "$@"; do
  # Without dpkg, on another system, everything counts as missing and its Debian name is shown.
  case $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) in
    installed*) ;;
    *) missing="$missing $package" ;;
  esac
done
[ -n "$missing" ] || exit 0

install="apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "Error: not installed:$missing; run: sudo apt-get update && sudo $install" >&2
  exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive $install -qq >/dev/null
