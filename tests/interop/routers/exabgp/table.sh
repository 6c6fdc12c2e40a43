# ExaBGP keeps no table: what it hears goes to this program, which keeps it in a file, and takes orders from a pipe.
exec 3<>"$1/orders"
cat <&3 &
exec cat >"$1/events"
