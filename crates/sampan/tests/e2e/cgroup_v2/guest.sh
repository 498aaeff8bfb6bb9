#!/bin/busybox sh
# The first process of the guest. What it finds out it prints as `fact NAME=VALUE`; the test on the host judges.
if [ ! -e /moved ]; then
  # An initramfs cannot be pivoted away from, as containers do: everything moves to a tmpfs first.
  /bin/busybox mkdir /new
  /bin/busybox mount -t tmpfs -o size=90% tmpfs /new
  /bin/busybox mkdir /new/proc /new/sys /new/dev /new/tmp /new/var /new/run /new/root
  /bin/busybox cp -a /bin /etc /lib /lib64 /usr /modules /init /pods.yaml /profile /new/
  : > /new/moved
  exec /bin/busybox switch_root /new /init
fi
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root KUBECONFIG=/root/kubeconfig
fact() { echo "fact $1=$(echo $2)"; }
end() {
  [ "$1" = well ] || { kubectl get pods -o wide; kubectl get events | tail -20; grep -v '"Normal"' /server.log | tail -30; }
  fact end "$1 at $(cut -d' ' -f1 /proc/uptime)"; sync; poweroff -f; sleep 60
}
# Asks until the answer is this, for at most so many tries.
until_is() { i=0; until [ "$($1)" = "$2" ]; do i=$((i+1)); [ $i -gt 240 ] && end "in vain: $1"; sleep 1; done; }

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t securityfs securityfs /sys/kernel/security
for module in $(cat /modules/order); do insmod /modules/$module || fact module "$module failed"; done
cat /profile > /sys/kernel/security/apparmor/.load || fact profile refused
ip link set lo up
echo guest > /proc/sys/kernel/hostname
echo 'nameserver 127.0.0.1' > /etc/resolv.conf
ulimit -n 65536
printf 'apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\npodPidsLimit: 123\n' > /kubelet.yaml
sampan server --stop-pods=true --write-kubeconfig $KUBECONFIG --node-name guest --kubelet-config /kubelet.yaml > /server.log 2>&1 &

of() { kubectl get pod "$1" -o "jsonpath=$2" 2>/dev/null; }
ready() { kubectl get node guest -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' 2>/dev/null; }
until_is ready True
fact ready "$(cut -d' ' -f1 /proc/uptime)"
kubectl apply -f /pods.yaml > /dev/null || end 'the pods are refused'
for pod in exact burst best guarded; do
  phase() { of $pod '{.status.phase}'; }
  until_is phase Running
  cgroup=$(find /sys/fs/cgroup -type d -name "*pod$(of $pod '{.metadata.uid}')")
  id=$(of $pod '{.status.containerStatuses[0].containerID}')
  fact $pod.pod "${cgroup%/*}"
  for file in cpu.max cpu.weight memory.max pids.max; do
    fact $pod.pod.$file "$(cat $cgroup/$file)"
    fact $pod.container.$file "$(cat $cgroup/${id#*//}/$file)"
  done
done
for class in kubepods kubepods/burstable kubepods/besteffort; do
  fact $class.cpu.weight "$(cat /sys/fs/cgroup/$class/cpu.weight)"
  fact $class.controllers "$(cat /sys/fs/cgroup/$class/cgroup.subtree_control)"
done
fact exact.inside "$(kubectl exec exact -- cat /proc/self/cgroup)"
fact exact.sees "$(kubectl exec exact -- ls /sys/fs/cgroup | grep -c kubepods)"
reason() { of greedy '{.status.containerStatuses[0].state.terminated.reason}'; }
until_is reason OOMKilled
fact greedy.code "$(of greedy '{.status.containerStatuses[0].state.terminated.exitCode}')"
fact guarded.profile "$(kubectl exec guarded -- cat /proc/self/attr/current)"
fact exact.profile "$(kubectl exec exact -- cat /proc/self/attr/current)"
fact burst.profile "$(kubectl exec burst -- cat /proc/self/attr/current)"
fact best.profile "$(kubectl exec best -- cat /proc/self/attr/current)"
fact guarded.write "$(kubectl exec guarded -- touch /tmp/x 2>&1 | head -1)"
# The kernel's log: a device that a container may make a node of and not use.
kubectl exec burst -- /host/busybox mknod /kmsg c 1 11 || fact burst.mknod refused
fact burst.device "$(kubectl exec burst -- /host/busybox head -c 1 /kmsg 2>&1 | grep -o 'Operation not permitted')"
fact burst.null "$(kubectl exec burst -- /host/busybox dd if=/dev/zero of=/dev/null bs=1 count=1 2>&1 | head -1)"
kubectl get --raw /api/v1/nodes/guest/proxy/stats/summary > /stats
fact stats "$(tr -d ' \n' < /stats | grep -o '"workingSetBytes":[1-9][0-9]*' | wc -l)"
kubectl delete pods --all --timeout=120s > /dev/null || end 'the pods stay'
fact remains "$(find /sys/fs/cgroup/kubepods -type d -name '*pod*-*' | wc -l)"
end well
