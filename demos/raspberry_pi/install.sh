#!/bin/sh
# Installs paraedge-demo on Raspberry Pi OS (64-bit), in a virtual environment. Running it again updates it.
#
#   sh install.sh [--service] [REQUIREMENT]
#
#   --service     start the demo with the machine, on ~/pi.paraedge (asks for sudo)
#   REQUIREMENT   what to install: a wheel, or a checkout's folder. [default: the checkout this script is in]
#
# PARAEDGE_DEMO_HOME: where the environment goes. [default: ~/paraedge-demo]
set -eu

fail() {
  echo "Error: $*" >&2
  exit 2
}

service=
requirement=$(cd "$(dirname "$0")/../.." && pwd)
for argument in "$@"; do
  case $argument in
    --service) service=yes ;;
    -h | --help)
      sed -n '2,10s/^# \{0,1\}//p' "$0"
      exit 0
      ;;
    -*) fail "unknown option $argument; see --help" ;;
    *) requirement=$argument ;;
  esac
done
home=${PARAEDGE_DEMO_HOME:-$HOME/paraedge-demo}

# The kernel may be 64-bit under a 32-bit system, so ask the programs, not the kernel.
bits=$(getconf LONG_BIT)
[ "$bits" = 64 ] || fail "this system is $bits-bit, and the engines are built for 64-bit only;" \
  "write 'Raspberry Pi OS (64-bit)' to the card with Raspberry Pi Imager"
command -v python3 >/dev/null || fail "there is no python3; run: sudo apt install python3 python3-venv"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "$(python3 --version) is too old; install 3.11 or newer (Raspberry Pi OS has it since Bookworm)"
python3 -c 'import ensurepip' 2>/dev/null || fail "python3 has no venv; run: sudo apt install python3-venv"

[ -f "$requirement" ] || [ -f "$requirement/pyproject.toml" ] || fail "$requirement is neither a wheel nor a checkout"

# System packages are seen because picamera2 is one of them.
[ -x "$home/bin/python" ] || python3 -m venv --system-site-packages "$home"
"$home/bin/python" -m pip install --upgrade "${requirement}[demo,litert]"
"$home/bin/paraedge-demo" --version

if [ -n "$service" ]; then
  unit=$(dirname "$0")/paraedge-demo.service
  [ -f "$unit" ] || fail "$unit is missing; it belongs beside this script"
  sed -e "s|/opt/paraedge-demo|$home|" -e "s|/home/pi|$HOME|g" -e "s|^User=pi|User=$(id -un)|" "$unit" |
    sudo tee /etc/systemd/system/paraedge-demo.service >/dev/null
  sudo systemctl daemon-reload
  sudo systemctl enable --now paraedge-demo.service
  echo "the address with the token: journalctl --unit paraedge-demo --grep open"
else
  echo "next: $home/bin/paraedge-demo --bundle pi.paraedge"
fi
