#!/bin/sh
# Make the fixtures from frames.s, for .debug_frame and .eh_frame: the section's bytes as linked (*.bin), what readelf
# says about them (*.txt), and the section's address (*.addr, for pc-relative pointers). Made with GNU binutils 2.40 for
# aarch64-linux-gnu.
set -eu
cd "$(dirname "$0")"
for section in debug_frame eh_frame; do
	{ echo "	.cfi_sections .$section"; cat frames.s; } >frames.tmp.s
	aarch64-linux-gnu-as -march=armv8.5-a -o frames.tmp.o frames.tmp.s
	aarch64-linux-gnu-ld --no-eh-frame-hdr -Ttext=0xffff800080010000 -e plain -o frames.tmp frames.tmp.o 2>/dev/null
	aarch64-linux-gnu-objcopy -O binary --only-section=".$section" \
		--set-section-flags ".$section=alloc,load,contents" frames.tmp "$section.bin"
	aarch64-linux-gnu-readelf --debug-dump=frames-interp frames.tmp >"$section.txt"
	aarch64-linux-gnu-readelf -SW frames.tmp | sed -n "s/.* \.$section *PROGBITS *\([0-9a-f]*\) .*/\1/p" >"$section.addr"
	chmod 644 "$section.bin"
	rm frames.tmp.s frames.tmp.o frames.tmp
done
