# Shared by the scripts of this OS definition; read with "." in its directory.

set -e

die() {
  echo "busybox-guest: $*" >&2
  exit 1
}

# The archive with the guest's settings begins here (MiB); below are the boot counter and the
# sectors of the load variant.
SETTINGS_AT=1

variant() {
  # API 10 knows no variants.
  v=${OS_VARIANT:-default}
  grep -qx -- "$v" variants.list || die "unknown variant '$v'"
  echo "$v"
}

# write_settings DEVICE VARIANT HOW : what the guest unpacks over its RAM disk
write_settings() {
  dir=$(mktemp -d)
  trap 'rm -rf "$dir"' EXIT
  mkdir "$dir/etc"
  echo "$INSTANCE_NAME" > "$dir/etc/hostname"
  echo "VARIANT=$2 HOW=$3" > "$dir/etc/guest"
  tar -C "$dir" -cf "$dir/settings.tar" etc
  dd if="$dir/settings.tar" of="$1" bs=1M seek=$SETTINGS_AT conv=notrunc,fsync status=none
}

# read_variant DEVICE : the variant a disk was installed with
read_variant() {
  dd if="$1" bs=1M skip=$SETTINGS_AT count=1 status=none | tar -xOf - etc/guest 2>/dev/null |
    sed -n 's/.*VARIANT=\([^ ]*\).*/\1/p'
}
