import time
import pytest
from tests.support.worker import *
pytestmark = pytest.mark.kafka
def test_x(system):
    w=system.start(); 
    system.send(tasks(0,500)); 
    system.await_answers(task_ids(500)); 
    w.await_caught_up(); 
    print(w.ask("status")["positions"])
    w.drain()
    w=system.start()
    t=time.time()
    while time.time()-t<3:
        print(round(time.time()-t,2), w.ask("status")["positions"]); 
        import select; select.select([],[],[],0.3)
