#!/bin/sh
# Rebuilds the fixtures and their golden readelf output.
# Made with gcc 12.2.0 and binutils 2.40 for aarch64-linux-gnu (Debian 12); other versions give other bytes.
set -eu
cd "$(dirname "$0")"
tool=${CROSS_COMPILE:-aarch64-linux-gnu-}
flags="-O2 -ffreestanding -fno-asynchronous-unwind-tables -fno-unwind-tables -fno-omit-frame-pointer -mbranch-protection=pac-ret
	-fpatchable-function-entry=4,2 -ffile-prefix-map=$PWD=. -fpic"
"${tool}gcc" $flags -gdwarf-5 -c tiny.c -o c.o
"${tool}gcc" -c tiny.S -o s.o
"${tool}ld" -r c.o s.o -o all.o
"${tool}strip" --strip-debug --keep-section=.debug_frame all.o -o tiny.o
"${tool}ld" -shared -Bsymbolic --build-id=sha1 -Ttext=0xffff800080010000 -z max-page-size=4096 c.o s.o -o all.so
"${tool}objcopy" -R .debug_info -R .debug_abbrev -R .debug_line -R .debug_str -R .debug_line_str \
	-R .debug_aranges -R .debug_loclists --compress-debug-sections=zlib all.so tiny.so
for file in tiny.o tiny.so; do
	"${tool}readelf" -W -S -n -s -r "$file" >"$file.readelf"
	"${tool}readelf" -W --debug-dump=frames-interp "$file" >"$file.frames"
done
rm -f c.o s.o all.o all.so
