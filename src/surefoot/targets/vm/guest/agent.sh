#!/bin/busybox sh
# The command channel: one request a line, "RUN id text", where the text is a shell command with every byte
# that could end the line written as a backslash escape that printf %b undoes. The answer is
#   <0x02>id NEWLINE output of the command NEWLINE <0x03>id status NEWLINE
# "PUT id size text" is followed by that many bytes of anything, which become the standard input of the command.
# A fresh shell runs the command, so that a syntax error in it ends that shell and not the channel.

# Ahead of the load, so that requests are answered at once however busy the guest is.
renice -n -10 -p $$ >/dev/null
exec 3<>/dev/hvc0
stty raw -echo <&3
printf '\002ready\n\n\003ready 0\n' >&3
while IFS= read -r line <&3; do
	verb=${line%% *}
	line=${line#* }
	id=${line%% *}
	line=${line#* }
	case $verb in
	RUN)
		command=$(printf '%b' "$line")
		printf '\002%s\n' "$id" >&3
		sh -c "$command" </dev/null >&3 2>&1 3>&-
		;;
	PUT)
		command=$(printf '%b' "${line#* }")
		printf '\002%s\n' "$id" >&3
		# Nothing follows the bytes before the answer, so head may read ahead.
		head -c "${line%% *}" <&3 | sh -c "$command" >&3 2>&1 3>&-
		;;
	*) continue ;;
	esac
	printf '\n\003%s %d\n' "$id" $? >&3
done
