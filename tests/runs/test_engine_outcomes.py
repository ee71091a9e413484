import tcb_ops as tcb
from shop import QUICK
from tcb_ops.simulator import Fault
def test_x(open_shop, whole):
    shop=open_shop()
    run=tcb.upload(shop.read(), settings=shop.settings, pace=QUICK)
    print(whole(run,30), shop.sim.stats, list(shop.folder.iterdir()))
    run=tcb.links(shop.read(), settings=shop.settings, pace=QUICK, out=shop.folder/'links.csv')
    print(whole(run,30), shop.sim.stats, list(shop.folder.iterdir()))
