# GoBGP puts nothing into a kernel: this does, as it tells of each change of its best paths, one next hop a prefix.
exec gobgp monitor global rib --current -a "$1" | while read -r _ what prefix _ hop _; do
    case "$what" in
    "[ROUTE]") ip route replace "$prefix" via "$hop" ;;
    "[DELROUTE]") ip route del "$prefix" ;;
    esac
done
